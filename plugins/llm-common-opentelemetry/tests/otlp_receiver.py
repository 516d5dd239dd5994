"""An OTLP receiver on loopback: it reads what exporters send by HTTP, with the protocol's own definitions."""

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from threading import Thread
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample


class OtlpReceiver:
    """Takes metrics at ``/v1/metrics``. :attr:`metrics` is the state after the latest export, by name."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.scopes: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._receive(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200 if self.path == "/v1/metrics" else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"

    def _receive(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.scopes.add(scope.scope.name)
                self.metrics |= {metric.name: metric for metric in scope.metrics}

    def families(self) -> Iterator[Family]:
        """Yield what was received as prometheus_client would show it."""
        for metric in self.metrics.values():
            assert metric.unit == ""
            if metric.WhichOneof("data") == "sum":
                assert metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
                kind = "counter" if metric.sum.is_monotonic else "gauge"
                family = Family(metric.name.removesuffix("_total"), metric.description, kind)
                for point in metric.sum.data_points:
                    amount = getattr(point, point.WhichOneof("value") or "as_int")
                    family.samples.append(Sample(metric.name, labels_of(point), amount))
            else:
                family = Family(metric.name, metric.description, "histogram")
                for one in metric.histogram.data_points:
                    family.samples += histogram_samples(metric.name, one)
            yield family

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def labels_of(point: Any) -> dict[str, str]:
    """Return the attributes of a data point or an exemplar; all of them are texts."""
    return {attribute.key: attribute.value.string_value for attribute in point.attributes}


def histogram_samples(name: str, point: Any) -> Iterator[Sample]:
    labels = labels_of(point)
    bounds = [*map(str, point.explicit_bounds), "+Inf"]
    for bound, upto in zip(bounds, accumulate(point.bucket_counts), strict=True):
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, upto)
    yield Sample(f"{name}_count", labels, point.count)
    yield Sample(f"{name}_sum", labels, point.sum)
