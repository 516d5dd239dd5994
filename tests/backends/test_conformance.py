"""The built-in backends against the suite that others' backends inherit."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from unittest.mock import patch

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from llm_common.backends import prometheus
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.hookspecs import hookimpl
from llm_common.prometheus import render_metrics
from llm_common.settings import Settings
from llm_common.testing.conformance import BackendContract
from llm_common.testing.families import families


class TestPrometheus(BackendContract):
    def create(self) -> object:
        self.registry = CollectorRegistry()
        return PrometheusBackend(self.registry)

    def read(self) -> Iterable[Family]:
        return text_string_to_metric_families(render_metrics(registry=self.registry)[0].decode())


class TestPrometheusInSeveralProcesses(BackendContract):
    def create(self) -> object:
        self.changes = ExitStack()
        directory = self.changes.enter_context(TemporaryDirectory())
        self.changes.enter_context(patch.dict(os.environ, PROMETHEUS_MULTIPROC_DIR=directory))
        self.changes.enter_context(patch.object(values, "ValueClass", values.MultiProcessValue()))  # type: ignore[no-untyped-call]
        self.changes.enter_context(patch.object(prometheus, "_shared", []))
        return PrometheusBackend(CollectorRegistry())

    def read(self) -> Iterable[Family]:
        summed = CollectorRegistry()
        MultiProcessCollector(summed)  # type: ignore[no-untyped-call]
        return text_string_to_metric_families(generate_latest(summed).decode())

    def close(self) -> None:
        for file in [file for store in prometheus._shared for file in store._files.values()]:
            file.close()  # type: ignore[no-untyped-call]
        self.changes.close()


class MemoryWithBuckets(MemoryBackend):
    @hookimpl
    def llm_common_configured(self, settings: Settings) -> None:
        self.buckets = settings.buckets


class TestMemory(BackendContract):
    def create(self) -> object:
        self.backend = MemoryWithBuckets()
        return self.backend

    def read(self) -> Iterable[Family]:
        return families(self.backend.records, self.backend.buckets)
