"""What an application would write without the facade, and the facade itself in each of its forms."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from aioprometheus.collectors import Counter as AioCounter
from aioprometheus.collectors import Histogram as AioHistogram
from aioprometheus.collectors import Registry as AioRegistry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Histogram

from benchmarks.measure import Case
from llm_common import action_tracking, action_tracking_decorator, configure
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_DURATION_BUCKETS
from llm_common_aioprometheus import AioprometheusBackend
from llm_common_opentelemetry import OpenTelemetryBackend

LABELS = {"name": "menu_handler", "env": "dev", "app": "bench"}


class Metrics:
    """The two metrics of an action as prometheus_client has them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.count = Counter(ACTION_COUNT.family, "count", ACTION_COUNT.labels, registry=self.registry)
        self.duration = Histogram(
            ACTION_DURATION.name,
            "duration",
            ACTION_DURATION.labels,
            registry=self.registry,
            buckets=ACTION_DURATION_BUCKETS,
        )

    def children(self, name: str = "menu_handler") -> tuple[Counter, Histogram]:
        """Return the children to cache for one action."""
        return self.count.labels(name, "ok", "dev", "bench"), self.duration.labels(name, "dev", "bench")


class TwoClocks:
    """The floor in Python: a context manager that knows its name and how long its block took."""

    __slots__ = ("name", "seconds", "started")

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        self.started = perf_counter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds = perf_counter() - self.started


def hand_written() -> dict[str, Case]:
    """Return the ways to count and time an action without the facade, and the bare floor."""
    count, duration = Metrics().children()
    again = Metrics()
    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench")
    otel_count, otel_duration = meter.create_counter("count"), meter.create_histogram("duration")
    aio = AioRegistry()
    aio_count = AioCounter("count", "count", registry=aio)
    aio_duration = AioHistogram("duration", "duration", registry=aio)
    names: dict[str, Any] = {
        "perf_counter": perf_counter,
        "TwoClocks": TwoClocks,
        "LABELS": LABELS,
        "count": count,
        "duration": duration,
        "again": again,
        "otel_count": otel_count,
        "otel_duration": otel_duration,
        "aio_count": aio_count,
        "aio_duration": aio_duration,
        "labels": {**LABELS, "status": "ok"},
    }
    return {
        "prometheus_client, cached children": Case("count.inc(); duration.observe(0.002)", names),
        "the same with two clocks": Case(
            "started = perf_counter(); count.inc(); duration.observe(perf_counter() - started)", names
        ),
        "the same with labels() each time": Case(
            "again.count.labels('menu_handler', 'ok', 'dev', 'bench').inc(); "
            "again.duration.labels('menu_handler', 'dev', 'bench').observe(0.002)",
            names,
            number=500,
        ),
        "OpenTelemetry SDK": Case("otel_count.add(1, labels); otel_duration.record(0.002, LABELS)", names, number=500),
        "aioprometheus": Case("aio_count.inc(labels); aio_duration.observe(LABELS, 0.002)", names, number=500),
        "two clocks alone": Case("with TwoClocks('menu_handler'): pass", names),
    }


@action_tracking_decorator("menu_handler")
def decorated() -> None:
    """Do nothing, tracked."""


@action_tracking_decorator("menu_handler")
async def decorated_coroutine() -> None:
    """Do nothing, tracked."""


def drive(coroutine: Any) -> None:
    """Run a coroutine that awaits nothing, without an event loop."""
    with suppress(StopIteration):
        coroutine.send(None)


def facade(prefix: str, configured: Callable[[], object]) -> dict[str, Case]:
    """Return the forms of the facade, with ``configured`` called before each burst."""
    names = {
        "action_tracking": action_tracking,
        "decorated": decorated,
        "decorated_coroutine": decorated_coroutine,
        "drive": drive,
    }
    return {
        f"{prefix}context manager": Case("with action_tracking('menu_handler'): pass", names, configured),
        f"{prefix}decorator": Case("decorated()", names, configured),
        f"{prefix}decorator, async": Case("drive(decorated_coroutine())", names, configured),
    }


def backends() -> dict[str, Callable[[], object]]:
    """Return, by name, what configures the facade for each backend."""
    prometheus, memory = PrometheusBackend(CollectorRegistry()), MemoryBackend(limit=1000)
    return {
        "prometheus": configured(prometheus),
        "memory": configured(memory),
        "noop": configured("noop"),
        "prometheus and memory": configured(prometheus, memory),
    }


def configured(*backends: object, plugins: tuple[str, ...] = ()) -> Callable[[], None]:
    """Return what configures the facade so, and binds the action: that happens once in an application's life."""

    def prepare() -> None:
        configure(app="bench", backends=backends, plugins=plugins)
        with action_tracking("menu_handler"):
            pass

    return prepare


def with_exemplars() -> Callable[[], None]:
    """Return what configures the Prometheus backend with exemplars of OpenTelemetry's spans."""
    return configured(PrometheusBackend(CollectorRegistry()), plugins=("opentelemetry",))


def separate_backends() -> dict[str, Callable[[], object]]:
    """Return, by name, what configures the facade for the backends that are distributions of their own."""
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return {
        "aioprometheus": configured(AioprometheusBackend(AioRegistry())),
        "opentelemetry": configured(OpenTelemetryBackend(provider)),
        "with exemplars, no span active": with_exemplars(),
    }


def in_span(case: Case) -> Case:
    """Return ``case`` with each burst in one sampled span."""
    tracer = TracerProvider().get_tracer("bench")
    return replace(case, around=lambda: tracer.start_as_current_span("burst"))


def in_threads(threads: int, function: Callable[[int], None], number: int) -> float:
    """Return how many seconds ``threads`` threads take that each call ``function(number)``."""
    barrier = threading.Barrier(threads + 1)

    def run() -> None:
        barrier.wait()
        function(number)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = perf_counter()
    for worker in workers:
        worker.join()
    return perf_counter() - started
