"""What is the backend's own: providers, views, exemplars, and the way of measurements from a block to a reader."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from threading import Event
from typing import Any
from weakref import ref

import pytest
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from llm_common import action_tracking, configure, shutdown
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import METRICS
from llm_common.contract import HttpSeries
from llm_common.dispatch import bind_http
from llm_common.errors import ConfigurationError
from llm_common.prometheus import render_metrics
from llm_common_opentelemetry import OpenTelemetryBackend
from llm_common_opentelemetry.handover import BREATH, MANY, MOST, handover
from otlp_receiver import OtlpReceiver, labels_of

SERVED = HttpSeries("GET", "200", "items/{item_id}", "app_api")
PATIENCE = 30.0


class Read:
    """A provider with a reader in memory, and the backend on it."""

    def __init__(self, **options: Any) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False, **options)
        self.backend = OpenTelemetryBackend(self.provider)

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else []
        return [
            point
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def read() -> Iterator[Read]:
    found = Read()
    configure(app="shop_bot", env="dev", backends=[found.backend], strict=True)
    yield found
    found.provider.shutdown()


@contextmanager
def span(sampler: Any = ALWAYS_ON) -> Iterator[str]:
    """Begin a trace, and yield its id in hexadecimal."""
    tracer = TracerProvider(sampler, shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("update") as current:
        yield format(current.get_span_context().trace_id, "032x")


def act(times: int = 1) -> None:
    for _ in range(times):
        with action_tracking("menu_handler") as tracker:
            tracker.size(3)


def test_every_metric_has_its_name_help_and_attributes_in_the_contracts_order(read: Read) -> None:
    act()
    bind_http(SERVED).finished(0.5, 10, 20)
    for metric in METRICS:
        for point in read.points(metric.name):
            assert tuple(point.attributes) == metric.labels
    data = read.reader.get_metrics_data()
    assert data
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "llm_common"
    assert {(one.name, one.description, one.unit) for one in scope.metrics} == {(m.name, m.help, "") for m in METRICS}


def test_the_prometheus_exporters_scrape_has_the_documented_lines() -> None:
    registry, other = CollectorRegistry(), CollectorRegistry()
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    buckets = [1.0, 2.5]  # the exporter writes bounds from a million on in another way
    configure(
        app="shop_bot",
        backends=[OpenTelemetryBackend(provider), PrometheusBackend(other)],
        action_duration_buckets=buckets,
        http_duration_buckets=buckets,
        http_size_buckets=buckets,
    )
    act(3)
    with suppress(LookupError), action_tracking("menu_handler"):
        raise LookupError
    bind_http(SERVED).finished(0.5, 10, 20)

    def lines(of: CollectorRegistry) -> set[tuple[str, ...]]:
        text = generate_latest(of).decode().replace("{", ",").replace("}", ",")
        return {tuple(sorted(line.split(","))) for line in text.splitlines() if "_sum" not in line}

    assert lines(registry) == lines(other)
    provider.shutdown()


def test_a_view_of_the_application_overrules_the_bounds() -> None:
    view = View(
        instrument_name="genapp_action_duration_sec", aggregation=ExplicitBucketHistogramAggregation([0.1, 1, 10])
    )
    read = Read(views=[view])
    configure(backends=[read.backend])
    act()
    (point,) = read.points("genapp_action_duration_sec")
    assert point.explicit_bounds == (0.1, 1, 10)


def test_a_view_that_drops_everything_takes_nothing_from_the_others() -> None:
    read = Read(views=[View(instrument_name="*", aggregation=DropAggregation())])
    other = CollectorRegistry()
    configure(app="shop_bot", env="dev", backends=[read.backend, PrometheusBackend(other)])
    act(MANY)
    assert read.points("genapp_action_count_total") == []
    assert f'status="ok"}} {MANY}.0'.encode() in generate_latest(other)


def test_bounds_can_change_until_something_was_recorded(read: Read) -> None:
    configure(app="shop_bot", backends=[read.backend], http_size_buckets=[10, 100])
    act()
    with pytest.raises(
        ConfigurationError, match=r"http_size_buckets can't change from .* or change the bounds by a view"
    ):
        configure(app="shop_bot", backends=[read.backend])
    act()
    assert read.points("genapp_action_count_total")[0].value == 2


def test_configuring_again_goes_on_with_the_same_instruments(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    act()
    for backend in (read.backend, OpenTelemetryBackend(read.provider)):
        configure(app="shop_bot", env="dev", backends=[backend])
        act()
    assert [point.value for point in read.points("genapp_action_count_total")] == [3]
    assert caplog.records == []


def exemplars(read: Read, name: str) -> list[tuple[str, float]]:
    """Return the traces and values of a metric's exemplars, which a reader gets once."""
    return [
        (format(one.trace_id or 0, "032x"), one.value) for point in read.points(name) for one in point.exemplars or ()
    ]


def test_a_sampled_span_leaves_its_trace_as_an_exemplar(read: Read) -> None:
    act()
    with span() as trace:
        act()
        bind_http(SERVED).finished(0.75, 10, 20)
    act()
    assert exemplars(read, "genapp_http_request_duration_sec") == [(trace, 0.75)]


@pytest.mark.parametrize("metric", ["genapp_action_count_total", "genapp_action_duration_sec"])
def test_of_many_actions_those_in_the_span_leave_exemplars(metric: str, read: Read) -> None:
    act(3)
    with span() as trace:
        act()
    act(3)
    assert [one for one, _ in exemplars(read, metric)] == [trace]


def test_a_span_that_is_not_sampled_leaves_none(read: Read) -> None:
    with span(ALWAYS_OFF):
        act()
    assert exemplars(read, "genapp_action_duration_sec") == []


def test_a_measurement_is_not_attributed_to_the_span_in_which_a_reader_collects(read: Read) -> None:
    act()
    with span():
        assert exemplars(read, "genapp_action_duration_sec") == []
    assert read.points("genapp_action_count_total")[0].value == 1


def test_an_exemplar_has_the_time_of_its_measurement_though_nobody_collects_for_long() -> None:
    recorded = Event()
    provider = Instrumented(lambda name, amount: recorded.set())
    configure(backends=[OpenTelemetryBackend(provider)])
    with span():
        act()
    assert recorded.wait(PATIENCE)


class Instrumented(NoOpMeterProvider):
    """A provider whose instruments call a function, and which has no reader."""

    def __init__(self, record: Callable[[str, float], object]) -> None:
        self._record = record

    def get_meter(self, name: str, *_: Any, **__: Any) -> Any:
        record = self._record

        class Instrument:
            def __init__(self, name: str) -> None:
                self.name = name

            def add(self, amount: float, *_: Any) -> None:
                record(self.name, amount)

            record = add

        class Meter(NoOpMeter):
            def create_counter(self, name: str, *_: Any, **__: Any) -> Any:
                return Instrument(name)

            create_histogram = create_counter

        return Meter(name)


def test_what_nobody_collects_is_handed_over_when_there_is_much_of_it() -> None:
    counted: list[float] = []
    enough = Event()

    def record(name: str, amount: float) -> None:
        if name == "genapp_action_count_total":
            counted.append(amount)
            if len(counted) >= 2 * MANY:
                enough.set()

    configure(backends=[OpenTelemetryBackend(Instrumented(record))])
    act(4 * MANY)
    assert enough.wait(PATIENCE)


def test_an_instrument_that_raises_harms_neither_the_application_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: list[float] = []

    def record(name: str, amount: float) -> None:
        if name == "genapp_action_duration_sec":
            raise LookupError("no such series")
        counted.append(amount)

    configure(backends=[OpenTelemetryBackend(Instrumented(record))])
    with caplog.at_level(logging.DEBUG, logger="llm_common"):
        act(2)
        handover.deliver()
    assert counted == [3.0, 1, 3.0, 1]
    faults = [one for one in caplog.records if "an instrument raised" in one.getMessage()]
    assert [one.levelname for one in faults][-1] == "DEBUG"
    assert len(faults) == 2


def test_a_shutdown_waits_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    begun, release = Event(), Event()

    def record(name: str, amount: float) -> None:
        begun.set()
        release.wait(PATIENCE)

    configure(backends=[OpenTelemetryBackend(Instrumented(record))])
    with span():
        act()
    assert begun.wait(PATIENCE)
    shutdown(0.01)
    release.set()
    assert "OpenTelemetry has not taken all measurements within 0.01 seconds" in caplog.text
    configure(backends=["noop"])
    shutdown()


def test_what_was_measured_before_a_fork_is_handed_over_by_the_parent_alone(read: Read) -> None:
    act(2)
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child, which ends without reporting
        signal.alarm(60)
        act()
        os._exit(read.points("genapp_action_count_total")[0].value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert read.points("genapp_action_count_total")[0].value == 2


def openmetrics(registry: CollectorRegistry) -> str:
    return render_metrics("application/openmetrics-text; version=1.0.0", registry=registry)[0].decode()


@pytest.mark.parametrize("beside", [True, False], ids=["as a backend beside it", "as a plugin"])
def test_the_prometheus_backend_shows_the_traces_too(beside: bool) -> None:
    registry, read = CollectorRegistry(), Read()
    prometheus = PrometheusBackend(registry)
    if beside:
        configure(app="shop_bot", backends=[prometheus, "opentelemetry"])
    else:
        configure(app="shop_bot", backends=[prometheus, read.backend], plugins=["opentelemetry"])
    act()
    with span(ALWAYS_OFF):
        act()
    assert "trace_id" not in openmetrics(registry)
    with span() as trace:
        act()
        bind_http(SERVED).finished(0.75, 10, 20)
    shown = {
        (sample.name, sample.exemplar.labels["trace_id"], len(sample.exemplar.labels["span_id"]))
        for family in text_string_to_metric_families(openmetrics(registry))  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }
    assert shown == {
        (name, trace, 16)
        for name in (
            "genapp_action_count_total",
            "genapp_action_duration_sec_bucket",
            "genapp_http_requests_total",
            "genapp_http_request_duration_sec_bucket",
        )
    }


def test_named_as_backend_and_as_plugin_it_is_in_force_once() -> None:
    registry = CollectorRegistry()
    configure(app="shop_bot", backends=[PrometheusBackend(registry), "opentelemetry"], plugins="opentelemetry")
    with span() as trace:
        act()
    assert trace in openmetrics(registry)
    assert 'status="ok"} 1.0 ' in openmetrics(registry)


def test_two_backends_on_one_provider_count_once(read: Read) -> None:
    configure(app="shop_bot", env="dev", backends=[read.backend, OpenTelemetryBackend(read.provider)])
    act()
    bind_http(SERVED).finished(0.5, 1, 2)
    assert [point.value for point in read.points("genapp_action_count_total")] == [1]
    assert [point.value for point in read.points("genapp_http_requests_total")] == [1]


def test_a_provider_that_nobody_uses_any_more_is_not_kept() -> None:
    def used() -> ref[MeterProvider]:
        read = Read()
        configure(backends=[read.backend])
        act()
        assert len(read.points("genapp_action_count_total")) == 1
        configure(backends=["noop"])
        return ref(read.provider)

    gone = copy_context().run(used)  # whose latest tracker is forgotten with it
    gc.collect()
    assert gone() is None


def test_without_threads_everything_arrives_with_the_next_collection(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("llm_common_opentelemetry.handover.start_new_thread", refused)
    act(2 * MANY)
    shutdown()
    assert read.points("genapp_action_count_total")[0].value == 2 * MANY
    late = Read()
    configure(app="shop_bot", backends=[late.backend])
    with span():
        act()
    monkeypatch.undo()
    act()
    handover.deliver()
    assert late.points("genapp_action_count_total")[0].value == 2


def test_who_measures_more_than_can_be_taken_is_slowed_down(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("llm_common_opentelemetry.handover.start_new_thread", refused)
    monkeypatch.setattr("llm_common_opentelemetry.handover.sleep", slept.append)
    act(MOST // 3)
    assert slept == []
    act(2)
    assert set(slept) == {BREATH}
    assert read.points("genapp_action_count_total")[0].value == MOST // 3 + 2


def test_a_reader_waits_no_longer_than_it_may_for_what_is_being_handed_over(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = Event(), Event()

    def record(name: str, amount: float) -> None:
        begun.set()
        release.wait(PATIENCE)

    monkeypatch.setattr("llm_common_opentelemetry.handover.PATIENCE", 0.01)
    configure(app="shop_bot", backends=[read.backend, OpenTelemetryBackend(Instrumented(record))])
    with span():
        act()
    assert begun.wait(PATIENCE)
    read.points("genapp_action_count_total")
    release.set()
    shutdown()
    assert read.points("genapp_action_count_total")[0].value == 1


SIGNALS = """
import signal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from llm_common import action_tracking, configure, shutdown
from llm_common_opentelemetry import OpenTelemetryBackend

reader = InMemoryMetricReader()
provider = MeterProvider([reader])
configure(backends=[OpenTelemetryBackend(provider)])
handled = 0

def handle(*_):
    global handled
    handled += 1
    with action_tracking(f"signal_{handled % 50}_task"):
        pass
    if handled < 1000:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
rounds = 0
while handled < 1000:
    reader.get_metrics_data()
    with action_tracking("menu_handler"):
        rounds += 1
shutdown()
points = [
    point
    for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics
    for metric in scope.metrics
    if metric.name == "genapp_action_count_total"
    for point in metric.data.data_points
]
by_signal = sum(point.value for point in points if point.attributes["name"].startswith("signal"))
print(handled - by_signal, rounds - sum(point.value for point in points if point.attributes["name"] == "menu_handler"))
"""


@pytest.mark.e2e
def test_first_actions_in_signal_handlers_that_interrupt_collections_count_and_never_hang(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "0 0\n")


def test_an_exemplar_reaches_an_otlp_receiver() -> None:
    with OtlpReceiver() as receiver:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(receiver.endpoint), float("inf"))
        provider = MeterProvider([reader], shutdown_on_exit=False)
        configure(app="shop_bot", env="dev", backends=[OpenTelemetryBackend(provider)])
        before = time.time_ns()
        with span() as trace:
            act()
        provider.force_flush()
        after = time.time_ns()
        provider.shutdown()
        assert receiver.scopes == {"llm_common"}
        (point,) = receiver.metrics["genapp_action_duration_sec"].histogram.data_points
    (exemplar,) = point.exemplars
    assert exemplar.trace_id.hex() == trace
    assert before <= exemplar.time_unix_nano <= after
    assert labels_of(point) == {"name": "menu_handler", "env": "dev", "app": "shop_bot"}
    assert not exemplar.filtered_attributes


APP = """
import sys
from llm_common import action_tracking

def act():
    with action_tracking("menu_handler"):
        pass
"""

BY_NAME = """
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

{before}
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(sys.argv[1]), 600_000)]))
for _ in range(3):
    act()
"""


def run(code: str, *arguments: str, directory: Path, backends: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LLM_COMMON_BACKENDS": backends, "LLM_COMMON_APP": "shop_bot"}
    command = [sys.executable, "-W", "error", "-c", APP + code, *arguments]
    done = subprocess.run(command, env=environ, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("before", "counted"),
    [
        ("", 3),
        ("from llm_common import configure; configure()", 3),
        ("act()", 4),
    ],
    ids=["first use", "configured before there is a provider", "recorded before there is a provider"],
)
def test_by_name_it_records_on_the_global_provider_which_exports_all_at_exit(
    before: str, counted: int, tmp_path: Path
) -> None:
    with OtlpReceiver() as receiver:
        run(BY_NAME.format(before=before), receiver.endpoint, directory=tmp_path, backends="opentelemetry")
        (point,) = receiver.metrics["genapp_action_count_total"].sum.data_points
    assert point.as_int == counted
    assert labels_of(point) == {"name": "menu_handler", "status": "ok", "env": "dev", "app": "shop_bot"}


@pytest.mark.e2e
def test_without_an_sdk_it_records_nowhere_and_the_application_runs(tmp_path: Path) -> None:
    code = "act(); print(sorted(name for name in sys.modules if name.startswith('opentelemetry.sdk')))"
    assert run(code, directory=tmp_path, backends="opentelemetry").stdout == "[]\n"


@pytest.mark.e2e
def test_nothing_of_it_is_imported_unless_it_is_named(tmp_path: Path) -> None:
    code = "act(); print([name for name in sys.modules if 'opentelemetry' in name])"
    assert run(code, directory=tmp_path, backends="prometheus").stdout == "[]\n"
    assert "llm_common_opentelemetry" in run(code, directory=tmp_path, backends="opentelemetry").stdout


def test_the_global_provider_is_taken_when_it_is_needed() -> None:
    assert OpenTelemetryBackend().meter_provider is metrics.get_meter_provider()


def test_the_page_names_the_sizes_of_the_queue() -> None:
    page = " ".join((Path(__file__).parents[3] / "docs" / "opentelemetry.md").read_text(encoding="utf-8").split())
    assert f"as soon as {MANY:,} measurements are waiting" in page
    assert f"for so long that {MOST:,} are waiting" in page
    assert BREATH == 0.0005
