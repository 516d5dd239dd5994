"""The backend against the suite that all backends pass: on the Prometheus exporter's scrape, and over OTLP."""

from collections.abc import Iterable
from math import inf

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from llm_common.testing.conformance import BackendContract
from llm_common_opentelemetry import OpenTelemetryBackend
from otlp_receiver import OtlpReceiver


class TestOpenTelemetry(BackendContract):
    def create(self) -> object:
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self.registry)
        self.provider = MeterProvider([reader], shutdown_on_exit=False)
        return OpenTelemetryBackend(self.provider)

    def read(self) -> Iterable[Family]:
        return text_string_to_metric_families(generate_latest(self.registry).decode())

    def close(self) -> None:
        self.provider.shutdown()


class TestOpenTelemetryOverOtlp(BackendContract):
    def create(self) -> object:
        self.receiver = OtlpReceiver()
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(self.receiver.endpoint), inf)
        self.provider = MeterProvider([reader], shutdown_on_exit=False)
        return OpenTelemetryBackend(self.provider)

    def read(self) -> Iterable[Family]:
        self.provider.force_flush()
        return self.receiver.families()

    def close(self) -> None:
        self.provider.shutdown()
        self.receiver.close()
