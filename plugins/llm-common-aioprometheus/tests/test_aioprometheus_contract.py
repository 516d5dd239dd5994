"""The backend against the suite that all backends pass."""

from collections.abc import Iterable

from aioprometheus.collectors import Registry
from aioprometheus.renderer import render
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from llm_common.testing.conformance import BackendContract
from llm_common_aioprometheus import AioprometheusBackend


class TestAioprometheus(BackendContract):
    def create(self) -> object:
        self.registry = Registry()
        return AioprometheusBackend(self.registry)

    def read(self) -> Iterable[Family]:
        return text_string_to_metric_families(render(self.registry, [])[0].decode())
