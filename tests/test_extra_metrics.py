"""The metrics beside the contract: what trackers record in them, where they are switched on, and nowhere else."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from llm_common import action_tracking, action_tracking_decorator, configure, dispatch, shutdown
from llm_common.backends.memory import MemoryBackend, MetricRecord
from llm_common.backends.multiprocess import MultiprocessStore
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import ACTION_FIRST_ITEM, ACTION_IN_PROGRESS, BACKEND_ERRORS, LLM_TOKENS, Buckets, Metric
from llm_common.errors import PluginError, TrackingError
from llm_common.hookspecs import hookimpl
from llm_common.prometheus import render_metrics
from llm_common.testing import RecordedMetrics, record_metrics
from llm_common.tracker import get_current, nearest_running
from recording import ListBackend

EXTRA = ("genapp_llm_tokens_total", "genapp_action_first_item_sec", "genapp_action_in_progress")


@pytest.fixture(params=[False, True], ids=["unfindable", "findable"])
def findable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(dispatch.state, "findable", request.param)
    return bool(request.param)


@pytest.fixture
def scraped(registry: CollectorRegistry, findable: bool) -> Callable[[], str]:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], extra_metrics="all", strict=True)
    return lambda: render_metrics(registry=registry)[0].decode()


def in_progress(recorded: RecordedMetrics, name: str = "answer_agent") -> float:
    return recorded.metric_value("genapp_action_in_progress", name=name)


def test_tokens_add_up_by_type_and_model(recorded_metrics: RecordedMetrics) -> None:
    with action_tracking("answer_llm_call") as tracker:
        tracker.tokens("small-1", input=10, output=3)
        tracker.tokens("small-1", input=5)
        tracker.tokens("large-1", output=7)
    value = recorded_metrics.metric_value
    assert value("genapp_llm_tokens_total", model="small-1", token_type="input") == 15
    assert value("genapp_llm_tokens_total", token_type="output") == 10
    assert value("genapp_llm_tokens_total", name="answer_llm_call", model="large-1") == 7


def test_the_first_item_counts_once(recorded_metrics: RecordedMetrics) -> None:
    with action_tracking("answer_llm_call") as tracker:
        for _ in range(3):
            tracker.first_item()
    with action_tracking("answer_llm_call"):
        pass
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name="answer_llm_call") == 1
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_bucket", le="0.5") == 1


def test_decorated_generators_record_their_first_item_by_themselves(recorded_metrics: RecordedMetrics) -> None:
    @action_tracking_decorator("stream_llm_call")
    def stream(items: int) -> Iterator[int]:
        yield from range(items)

    @action_tracking_decorator("astream_llm_call")
    async def astream(items: int) -> AsyncIterator[int]:
        for item in range(items):
            yield item

    async def drain() -> None:
        for items in (0, 3):
            assert [item async for item in astream(items)] == [*range(items)]

    for items in (0, 1, 3):
        assert [*stream(items)] == [*range(items)]
    asyncio.run(drain())
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name="stream_llm_call") == 2
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name="astream_llm_call") == 1


def test_actions_in_progress_are_counted_however_they_end(findable: bool, recorded_metrics: RecordedMetrics) -> None:
    assert in_progress(recorded_metrics) == 0
    for exception in (None, ValueError(), KeyboardInterrupt()):
        with action_tracking("answer_agent"):
            with suppress(ValueError, KeyboardInterrupt), action_tracking("answer_agent"):
                assert in_progress(recorded_metrics) == 2
                if exception:
                    raise exception
            assert in_progress(recorded_metrics) == 1
    assert in_progress(recorded_metrics) == 0
    assert [event.status for event in recorded_metrics.events][::2] == ["ok", "error", "cancelled"]


def test_a_decorated_call_is_in_progress_while_it_runs(findable: bool, recorded_metrics: RecordedMetrics) -> None:
    seen: list[float] = []

    @action_tracking_decorator("answer_agent")
    def answer() -> None:
        seen.append(in_progress(recorded_metrics))

    @action_tracking_decorator("answer_agent")
    def stream() -> Iterator[None]:
        yield

    answer()
    half = stream()
    seen.append(in_progress(recorded_metrics))
    next(half)
    seen.append(in_progress(recorded_metrics))
    half.close()  # type: ignore[attr-defined]
    seen.append(in_progress(recorded_metrics))
    assert seen == [1, 0, 1, 0]


def test_an_action_under_way_stays_in_progress_where_it_began() -> None:
    with record_metrics() as first:
        with action_tracking("answer_agent"):
            with record_metrics() as second:
                pass
            assert (in_progress(first), in_progress(second)) == (1, 0)
        assert (in_progress(first), in_progress(second)) == (0, 0)


def test_a_hung_agent_is_seen_on_the_scrape(scraped: Callable[[], str]) -> None:
    with action_tracking("answer_agent"):
        assert 'genapp_action_in_progress{app="shop_bot",env="dev",name="answer_agent"} 1.0\n' in scraped()
    assert 'genapp_action_in_progress{app="shop_bot",env="dev",name="answer_agent"} 0.0\n' in scraped()
    assert "# TYPE genapp_action_in_progress gauge\n" in scraped()


def test_the_scrape_is_that_of_prometheus_client_byte_for_byte(
    scraped: Callable[[], str], registry: CollectorRegistry
) -> None:
    for name in ("answer_agent", 'a "quoted" %d one'):
        with action_tracking(name) as tracker:
            tracker.first_item()
            tracker.tokens("small-1", input=2_000_000, output=3)
    text = render_metrics("application/openmetrics-text; version=1.0.0", registry=registry)[0]
    assert text == generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    assert 'token_type="input"} 2e+06\n' in scraped()


@pytest.mark.parametrize("backends", [["noop"], None], ids=["noop", "prometheus"])
def test_without_the_setting_nothing_of_them_is_recorded(
    backends: list[object] | None, registry: CollectorRegistry
) -> None:
    configure(app="shop_bot", backends=backends or [PrometheusBackend(registry)], strict=True)
    with action_tracking("answer_llm_call") as tracker:
        tracker.first_item()
        tracker.tokens("small-1", input=1, output=2)
    assert not any(name in render_metrics(registry=registry)[0].decode() for name in EXTRA)


def test_outside_of_any_action_and_after_shutdown_they_do_nothing() -> None:
    from llm_common import current_action

    configure(app="shop_bot", backends=[MemoryBackend()], extra_metrics="all", strict=True)
    current_action().tokens("small-1", input=1)
    current_action().first_item()
    shutdown()
    with action_tracking("answer_llm_call") as tracker:
        tracker.tokens("small-1", input=1)
        tracker.first_item()


def test_only_what_is_switched_on_is_recorded(registry: CollectorRegistry) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], extra_metrics=["first_item"], strict=True)
    with action_tracking("answer_llm_call") as tracker:
        tracker.tokens("small-1", input=1)
        tracker.first_item()
    metrics = [record.metric for record in memory.records if isinstance(record, MetricRecord)]
    assert (metrics, len(memory.records)) == ([ACTION_FIRST_ITEM], 2)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            lambda tracker: tracker.tokens("small-1", input=-1),
            r"tokens\('small-1', input=-1\) can't be added; accepted",
        ),
        (lambda tracker: tracker.tokens("small-1", output=float("nan")), "output=nan"),
        (lambda tracker: tracker.tokens(None, input=1), r"tokens\(None, input=1\)"),
    ],
)
def test_tokens_that_are_none_are_misuse(call: Any, problem: str, recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(TrackingError, match=problem), action_tracking("answer_llm_call") as tracker:
        call(tracker)
    assert recorded_metrics.metric_value("genapp_llm_tokens_total") == 0


def test_tokens_that_are_none_are_logged_once_and_the_rest_counts(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], extra_metrics=["llm_tokens"])
    for _ in range(2):
        with action_tracking("answer_llm_call") as tracker:
            tracker.tokens("small-1", input=-1, output=1)
            tracker.tokens("small-1", input=2)
    assert [record.amount for record in memory.records if isinstance(record, MetricRecord)] == [2, 2]
    assert [one.levelname for one in caplog.records] == ["WARNING"]


def test_series_go_on_where_they_were_after_another_configuration(registry: CollectorRegistry) -> None:
    for _ in range(2):
        configure(app="shop_bot", backends=[PrometheusBackend(registry)], extra_metrics="all")
        with action_tracking("answer_llm_call") as tracker:
            tracker.tokens("small-1", input=2)
    assert b'token_type="input"} 4.0\n' in render_metrics(registry=registry)[0]


def test_outside_of_the_block_both_are_misuse(recorded_metrics: RecordedMetrics) -> None:
    tracker = action_tracking("answer_llm_call")
    with pytest.raises(TrackingError, match=r"tokens\(\) was called outside the block"):
        tracker.tokens("small-1", input=1)
    with tracker:
        pass
    with pytest.raises(TrackingError, match=r"first_item\(\) was called outside the block"):
        tracker.first_item()


def test_models_past_the_limit_are_counted_together(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], extra_metrics=["llm_tokens"], max_series=2)
    with action_tracking("answer_llm_call") as tracker:
        for number in range(5):
            tracker.tokens(f"model-{number}", input=1)
    models = [record.values[2] for record in memory.records if isinstance(record, MetricRecord)]
    assert models == ["model-0", "model-1", "{other}", "{other}", "{other}"]
    (warning,) = [one.getMessage() for one in caplog.records]
    assert warning == (
        "genapp_llm_tokens_total has 2 series, which is the limit (max_series); further models are counted together as "
        "'{other}', the first of them ('answer_llm_call', 'input', 'model-2'). Is a model's name built from data?"
    )


class Partial(ListBackend):
    """A backend that has metrics beside the contract, and fails where it is told to."""

    broken: str = ""
    amounts: list[tuple[str, float]]

    @hookimpl
    def llm_common_bind_metric(self, metric: Metric, values: tuple[str, ...]) -> Any:
        if self.broken == "bind":
            raise LookupError("no such metric")
        if self.broken == "recorder":
            return "a recorder"
        return type("Recorder", (), {"record": lambda _, amount: self.record(metric, amount)})()

    def record(self, metric: Metric, amount: float) -> None:
        if self.broken == "record":
            raise LookupError("no such series")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("bind", "llm_common_bind_metric raised LookupError: no such metric"),
        ("recorder", "which has no method record(); a recorder has record(amount)"),
        ("record", "partial: record raised LookupError: no such series"),
    ],
)
def test_a_fault_is_logged_once_and_the_others_record(
    broken: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, memory = Partial("partial"), MemoryBackend()
    backend.broken = broken
    configure(app="shop_bot", backends=[backend, memory], extra_metrics=["in_progress"])
    for _ in range(2):
        with action_tracking("answer_agent"):
            pass
    recorded = [record.metric for record in memory.records if isinstance(record, MetricRecord)]
    assert [metric for metric in recorded if metric is not BACKEND_ERRORS] == [ACTION_IN_PROGRESS] * 4
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert words in warning
    with pytest.raises((LookupError, PluginError)):
        configure(app="shop_bot", backends=[backend, memory], extra_metrics=["in_progress"], strict=True)
        with action_tracking("answer_agent"):
            pass


def test_a_block_that_could_not_begin_is_not_the_current_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch.state, "findable", True)
    backend = Partial("partial")
    backend.broken = "record"
    configure(app="shop_bot", backends=[backend], extra_metrics=["in_progress"], strict=True)
    before = nearest_running(get_current())
    tracker = action_tracking("answer_agent")
    with pytest.raises(LookupError):
        tracker.__enter__()
    assert nearest_running(get_current()) is before
    backend.broken = ""
    with tracker, pytest.raises(RuntimeError, match="is in use already"):
        tracker.__enter__()


def test_a_backend_without_them_records_the_rest() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], extra_metrics="all", strict=True)
    with action_tracking("answer_llm_call") as tracker:
        tracker.first_item()
        tracker.tokens("small-1", input=1)
    assert backend.calls == [("answer_llm_call", "ok")]


def test_bounds_of_the_first_item_can_be_configured(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], extra_metrics="all", first_item_buckets=[1, 2.5])
    with action_tracking("answer_llm_call") as tracker:
        tracker.first_item()
    text = render_metrics(registry=registry)[0].decode()
    bounds = [line.split('le="')[1].split('"')[0] for line in text.splitlines() if "first_item_sec_bucket" in line]
    assert bounds == ["1.0", "2.5", "+Inf"]


def run(code: str, directory: Path) -> str:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory), "LLM_COMMON_EXTRA_METRICS": "all"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


WORKER = """
import os
from llm_common.prometheus import action_tracking, configure, render_metrics
configure(app="shop_bot", strict=True)
tracker = action_tracking("answer_agent").__enter__()
tracker.first_item()
tracker.tokens("small-1", input=2, output=1)
"""


def test_with_several_processes_counts_stay_and_gauges_go_with_their_process(tmp_path: Path) -> None:
    own = run(WORKER + "print(render_metrics()[0].decode())", tmp_path)
    assert 'genapp_action_in_progress{app="shop_bot",env="dev",name="answer_agent"} 1.0\n' in own
    run(WORKER, tmp_path)
    after = run("from llm_common.prometheus import render_metrics; print(render_metrics()[0].decode())", tmp_path)
    assert 'name="answer_agent",token_type="input"} 4.0\n' in after
    assert 'genapp_action_first_item_sec_count{app="shop_bot",env="dev",name="answer_agent"} 2.0\n' in after
    assert "genapp_action_in_progress{" not in after
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("gauge")]


def test_the_registry_of_one_of_several_processes_shows_its_own(tmp_path: Path) -> None:
    code = (
        WORKER + "from prometheus_client import REGISTRY, generate_latest\nprint(generate_latest(REGISTRY).decode())\n"
    )
    text = run(code, tmp_path)
    for line in (
        'genapp_action_in_progress{app="shop_bot",env="dev",name="answer_agent"} 1.0\n',
        'genapp_action_first_item_sec_count{app="shop_bot",env="dev",name="answer_agent"} 1.0\n',
        'model="small-1",name="answer_agent",token_type="output"} 1.0\n',
    ):
        assert line in text


def test_series_that_were_bound_and_measured_nothing_are_not_shown(tmp_path: Path) -> None:
    store = MultiprocessStore(Buckets(), str(tmp_path))
    recorder = store.metric(LLM_TOKENS, ("answer_llm_call", "input", "small-1", "dev", "shop_bot"))
    assert [*recorder.samples()] == []
    assert not store.empty
    assert store.metric(LLM_TOKENS, ("answer_llm_call", "input", "small-1", "dev", "shop_bot")) is recorder
