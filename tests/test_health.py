"""Backends that fail again and again are switched off and tried again later; healthy ones aren't affected."""

import logging
import threading
from collections.abc import Callable
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from llm_common import action_tracking, configure, dispatch, hookimpl, http_tracking, shutdown
from llm_common.backends.memory import MemoryBackend, MetricRecord
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.bound import bindings, stops_program
from llm_common.catalog import BACKEND_ERRORS, Metric
from llm_common.contract import FOLD_AT, Status
from llm_common.dispatch import unconfigured
from llm_common.exposition import respond
from llm_common.health import FIRST_PAUSE, LONGEST_PAUSE, MOST_FAULTS, REBIND_AFTER, Health, Watched, not_nested
from llm_common.http_exchange import Exchange
from llm_common.prometheus import render_metrics
from llm_common.tracker import FindableSampledTracker, SampledTracker
from recording import FaultyBackend, ListBackend
from scraping import parsed, series


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("llm_common.health.monotonic", clock)
    return clock


class Counting(FaultyBackend):
    """Counts how often it is called where it may fail."""

    def __init__(self, *broken: str) -> None:
        super().__init__(*broken)
        self.asked: list[str] = []

    def fail(self, operation: str) -> None:
        self.asked.append(operation)
        super().fail(operation)

    def calls_during(self, function: Callable[[], object]) -> list[str]:
        self.asked.clear()
        function()
        return self.asked


def track(name: str = "menu_handler") -> None:
    with action_tracking(name):
        pass


def track_often() -> None:
    for _ in range(3 * MOST_FAULTS):
        track()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_backend_that_fails_persistently_is_switched_off_with_one_message_and_tried_again_less_and_less_often(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    faulty, healthy = Counting("finished"), MemoryBackend()
    configure(app="shop_bot", backends=[faulty, healthy])
    assert faulty.calls_during(track_often).count("finished") == MOST_FAULTS
    pause = FIRST_PAUSE
    for _ in range(8):
        clock.now += pause - 0.01
        assert faulty.calls_during(track_often) == []
        clock.now += 0.01
        assert faulty.calls_during(track_often).count("finished") == 1
        pause = min(2 * pause, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE
    first, second = warnings(caplog)
    assert "finished raised OSError" in first
    assert f"faulty failed {MOST_FAULTS} times in a row and is switched off" in second
    assert len(healthy.events) == 17 * 3 * MOST_FAULTS


def test_a_backend_that_works_again_records_again_and_has_all_its_tries(clock: Clock) -> None:
    faulty = Counting("finished")
    configure(app="shop_bot", backends=[faulty, ListBackend()])
    track_often()
    faulty.broken = ()
    clock.now += FIRST_PAUSE
    track_often()
    assert len(faulty.calls) == 3 * MOST_FAULTS
    faulty.broken = ("finished",)
    assert faulty.calls_during(track_often).count("finished") == MOST_FAULTS
    clock.now += FIRST_PAUSE
    assert faulty.calls_during(track).count("finished") == 1


def test_a_backend_that_fails_now_and_then_is_never_switched_off(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Counting()
    configure(app="shop_bot", backends=[faulty, ListBackend()])
    for number in range(20 * MOST_FAULTS):
        faulty.broken = ("finished",) if number % 2 else ()
        track()
    assert len(faulty.calls) == 10 * MOST_FAULTS
    assert len(warnings(caplog)) == 1


def test_a_backend_whose_hook_raised_is_asked_again_later(clock: Clock) -> None:
    faulty, healthy = Counting("bind"), ListBackend()
    configure(app="shop_bot", backends=[faulty, healthy])
    assert faulty.calls_during(track_often) == ["bind"]
    clock.now += FIRST_PAUSE
    assert faulty.calls_during(track_often) == ["bind"]
    faulty.broken = ()
    clock.now += 2 * FIRST_PAUSE
    track()  # the one that finds that it is time
    track()
    assert faulty.calls == [("menu_handler", "ok")]
    assert len(healthy.calls) == 6 * MOST_FAULTS + 2


def test_names_that_are_new_while_a_backend_is_switched_off_do_not_reach_it(clock: Clock) -> None:
    faulty = Counting("finished")
    configure(app="shop_bot", backends=[faulty, ListBackend()])
    track_often()
    clock.now += REBIND_AFTER
    assert faulty.calls_during(lambda: track("other_handler")) == []
    faulty.broken = ()
    clock.now += FIRST_PAUSE
    for _ in range(2):
        track("other_handler")
    assert faulty.calls == [("other_handler", "ok")]


@pytest.mark.parametrize("operation", ["http", "bind_http"])
def test_http_is_switched_off_and_tried_again_as_actions_are(operation: str, clock: Clock) -> None:
    faulty, healthy = Counting(operation), ListBackend()
    configure(app="shop_bot", backends=[faulty, healthy])

    def request() -> None:
        http_tracking("app_api", "/items", "GET", 7, 200, 0.01, 5)

    for _ in range(2 * MOST_FAULTS):
        request()
    assert faulty.calls_during(request) == []
    faulty.broken = ()
    clock.now += FIRST_PAUSE
    request()
    request()
    assert faulty.http
    assert len(healthy.http) == 2 * MOST_FAULTS + 3


def test_a_fold_that_fails_does_not_fill_the_memory(
    clock: Clock, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    with monkeypatch.context() as broken:
        broken.setattr("llm_common.backends.action_series.counted", lambda *_: 1 / 0)
        for _ in range(3 * FOLD_AT):
            track()
    count = series("genapp_action_count_total", app="shop_bot", env="dev", name="menu_handler", status="ok")
    assert parsed(render_metrics(registry=registry)[0].decode())[count] <= FOLD_AT + MOST_FAULTS
    clock.now += FIRST_PAUSE
    before = parsed(render_metrics(registry=registry)[0].decode())[count]
    track()
    assert parsed(render_metrics(registry=registry)[0].decode())[count] == before + 1


def test_two_backends_on_one_registry_count_once_though_one_of_them_failed(registry: CollectorRegistry) -> None:
    class Moody(PrometheusBackend):
        @hookimpl
        def llm_common_bind_http(self, series: Any, settings: Any, exemplar: Any) -> Any:
            raise OSError

    configure(app="shop_bot", backends=[PrometheusBackend(registry), Moody(registry)])
    http_tracking("app_api", "/items", "GET", 7, 200, 0.01, 5)
    track()
    count = series("genapp_action_count_total", app="shop_bot", env="dev", name="menu_handler", status="ok")
    assert parsed(render_metrics(registry=registry)[0].decode())[count] == 1


def test_in_strict_mode_every_fault_raises_and_nothing_is_switched_off() -> None:
    configure(app="shop_bot", backends=[FaultyBackend("finished")], strict=True)
    for _ in range(2 * MOST_FAULTS):
        with pytest.raises(OSError, match="finished is broken"):
            track()


def test_a_healthy_backend_is_called_directly(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    track()
    assert bindings["menu_handler"].tracker_class in (SampledTracker, FindableSampledTracker)


def test_a_backend_that_tracks_without_end_is_cut_off(clock: Clock) -> None:
    healthy = ListBackend("healthy")

    class Recursing(ListBackend):
        @hookimpl
        def llm_common_bind_action(self, name: str) -> Any:
            recorder = super().llm_common_bind_action(name)
            recorder.finished = lambda status, seconds: track("flush_task")  # type: ignore[method-assign]
            return recorder

    configure(app="shop_bot", backends=[Recursing(), healthy])
    track()
    healthy.calls.clear()
    track()
    assert sorted(healthy.calls) == [("flush_task", "ok"), ("menu_handler", "ok")]


def test_a_source_of_exemplars_that_failed_and_tracks_without_end_is_cut_off(registry: CollectorRegistry) -> None:
    class Source:
        calls = 0

        def labels(self) -> dict[str, str]:
            self.calls += 1
            if self.calls == 1:
                raise OSError("not yet")
            track("flush_task")
            return {"trace_id": "1"}

        @hookimpl
        def llm_common_exemplar_source(self) -> Callable[[], dict[str, str]]:
            return self.labels

    source = Source()
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], plugins=[source])
    track()
    track()
    assert source.calls == 2


class Outage(BaseException):
    pass


def raised_by(package: str) -> BaseException:
    made: BaseException = type("Timeout", (BaseException,), {"__module__": package})()
    return made


@pytest.mark.parametrize(
    ("exception", "stops"),
    [
        (KeyboardInterrupt(), True),
        (SystemExit(2), True),
        (raised_by("gevent.timeout"), True),
        (raised_by("greenlet"), True),
        (Outage(), False),
        (GeneratorExit(), False),
        (OSError(), False),
    ],
)
def test_what_comes_from_outside_is_no_fault_of_a_backend(exception: BaseException, stops: bool) -> None:
    assert stops_program(exception) is stops


@pytest.mark.parametrize(("fault", "seen"), [(Outage, KeyError), (KeyboardInterrupt, KeyboardInterrupt)])
def test_in_strict_mode_no_fault_takes_the_place_of_what_ended_an_exchange(
    fault: type[BaseException], seen: type[BaseException]
) -> None:
    class Raising(ListBackend):
        def fail(self, operation: str) -> None:
            raise fault

    configure(app="shop_bot", backends=[Raising()], strict=True)
    with pytest.raises(seen):
        request_once()


def request_once() -> None:
    exchange = Exchange("app_api", "GET")
    try:
        raise KeyError
    except KeyError as problem:
        exchange.end("500", "items", problem)
        raise


class Refusing:
    """A collector, or a backend, that can't show what it has; as a backend it can't count either."""

    name = "refusing"

    @hookimpl
    def llm_common_bind_action(self, name: str) -> None:
        """Record nothing."""

    def collect(self) -> list[Any]:
        raise OSError("no")


def faults_of(memory: MemoryBackend) -> list[tuple[str, ...]]:
    return [one.values for one in memory.records if isinstance(one, MetricRecord) and one.metric is BACKEND_ERRORS]


def test_a_backend_that_cannot_be_shown_is_counted(registry: CollectorRegistry) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[Refusing(), memory])
    assert respond("GET", "", {}, None).status == 200
    assert faults_of(memory) == [("refusing", "collect", "dev", "shop_bot")]
    configure(app="shop_bot", backends=[PrometheusBackend(registry), memory])
    registry.register(Refusing())
    assert respond("GET", "", {}, None).status == 500
    assert faults_of(memory)[1:] == [("prometheus", "collect", "dev", "shop_bot")]
    assert respond("GET", "", {}, registry).status == 500
    configure(app="shop_bot", backends=[memory])  # whose registry isn't shown
    assert len(faults_of(memory)) == 2


def test_a_backend_on_the_registry_of_another_counts_a_fault_once(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry), PrometheusBackend(registry), Raising()])
    with action_tracking("menu_handler"):
        pass
    (line,) = [one for one in render_metrics()[0].decode().splitlines() if one.startswith("genapp_backend_errors")]
    assert line.endswith(" 1.0")


def test_a_backend_that_is_switched_off_is_not_asked_to_count() -> None:
    off, memory = Raising(), MemoryBackend()
    configure(app="shop_bot", backends=[off, Refusing(), memory])
    for _ in range(MOST_FAULTS + 5):
        with action_tracking("menu_handler"):
            pass
    assert len(faults_of(memory)) == off.counted == MOST_FAULTS
    assert respond("GET", "", {}, None).status == 200
    assert (len(faults_of(memory)), off.counted) == (MOST_FAULTS + 1, MOST_FAULTS)


class Raising:
    """Fails with every action, and counts faults."""

    name = "raising"
    counted = 0

    @hookimpl
    def llm_common_bind_action(self, name: str) -> "Raising":
        """Record by raising."""
        return self

    @hookimpl
    def llm_common_bind_metric(self, metric: Metric) -> "Raising":
        """Record well."""
        return self

    def finished(self, status: Status, seconds: float) -> None:
        raise OSError("no")

    def sized(self, amount: float) -> None:
        """Do nothing."""

    def record(self, amount: float) -> None:
        self.counted += 1


def test_each_backend_that_is_switched_off_is_told(caplog: pytest.LogCaptureFixture) -> None:
    configure(app="shop_bot", backends=[Raising(), Raising()])
    for _ in range(MOST_FAULTS):
        with action_tracking("menu_handler"):
            pass
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING" and "switched off" in one.message]
    assert [message.partition(" ")[0] for message in told] == ["raising", "raising'"]


def test_a_fault_that_another_thread_has_while_one_is_counted_counts_too() -> None:
    memory, waiting, go_on = MemoryBackend(), Event(), Event()

    class Slow(Raising):
        def record(self, amount: float) -> None:
            if not waiting.is_set():
                waiting.set()
                go_on.wait(60)

    configure(app="shop_bot", backends=[memory, Slow()])

    def track() -> None:
        with action_tracking("menu_handler"):
            pass

    thread = Thread(target=track)
    thread.start()
    assert waiting.wait(60)
    track()
    go_on.set()
    thread.join()
    assert len(faults_of(memory)) == 2


class Unnamed:
    """A plugin whose name can't be had."""

    @property
    def name(self) -> str:
        raise OSError("no")

    @hookimpl
    def llm_common_classify_exception(self, exception: BaseException) -> Status:
        raise LookupError


@hookimpl
def undecided(exception: BaseException) -> Status:
    raise LookupError


@pytest.mark.parametrize(
    ("plugin", "name"),
    [
        (Unnamed(), "Unnamed"),
        (SimpleNamespace(llm_common_classify_exception=undecided), "SimpleNamespace"),
        (
            SimpleNamespace(__name__="shop", llm_common_classify_exception=undecided),
            "shop",
        ),
        (SimpleNamespace(name=7, llm_common_classify_exception=undecided), "7"),
    ],
)
def test_what_fails_is_called_by_its_name(plugin: object, name: str) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], plugins=[plugin])
    with pytest.raises(KeyError), action_tracking("menu_handler"):
        raise KeyError
    assert [one[0] for one in faults_of(memory)] == [name]


def test_a_backend_that_could_not_count_one_fault_is_asked_at_the_next() -> None:
    class Hesitant(Raising):
        asked = 0

        @hookimpl
        def llm_common_bind_metric(self, metric: Metric) -> Raising:
            self.asked += 1
            if self.asked == 1:
                raise OSError("not yet")
            return self

    backend = Hesitant()
    configure(app="shop_bot", backends=[backend])
    for _ in range(3):
        with action_tracking("menu_handler"):
            pass
    assert (backend.asked, backend.counted) == (2, 2)


def test_what_was_shut_down_counts_no_fault_of_what_is_shut_down_after_it() -> None:
    class Closed(Raising):
        @hookimpl
        def llm_common_shutdown(self) -> None:
            raise OSError("no")

    memory, first, second = MemoryBackend(), Closed(), Closed()
    configure(app="shop_bot", backends=[memory, first, second])
    shutdown()
    assert len(faults_of(memory)) == 2
    assert first.counted + second.counted == 3  # each its own, and one that of the other


def test_a_scrape_in_a_wrong_configuration_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    monkeypatch.setenv("LLM_COMMON_STRICT", "1")
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nosuch")
    with unconfigured():
        assert respond("GET", "", {}, None).status == 500


def test_backends_whose_names_are_built_from_data_fill_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryBackend()
    for number in range(5):
        named = Raising()
        named.name = f"backend {number}"
        configure(app="shop_bot", backends=[memory, named], max_series=2)
        with action_tracking("menu_handler"):
            pass
    assert [one[:2] for one in faults_of(memory)] == [
        *(("backend 0", "finished"), ("backend 1", "finished")),
        *3 * [("{other}", "{other}")],
    ]
    (told,) = [one.getMessage() for one in caplog.records if "is the limit" in one.getMessage()]
    assert told == (
        "genapp_backend_errors_total has 2 series, which is the limit (max_series); further ones are counted together "
        "as '{other}', the first of them ('backend 2', 'finished'). Is a backend's name built from data?"
    )


class Interrupted(set[int]):
    """A set whose addition is interrupted right after it, as by a signal handler that raises."""

    def add(self, item: int) -> None:
        super().add(item)
        raise KeyboardInterrupt


def test_an_interruption_at_the_beginning_of_a_call_leaves_no_thread_out() -> None:
    called: list[float] = []
    health = Health(lambda: None)
    health.inside = Interrupted()
    recorder = Watched(health, SimpleNamespace(record=called.append))
    with pytest.raises(KeyboardInterrupt):
        recorder.record(1.0)  # type: ignore[attr-defined]
    health.inside = set(health.inside)
    recorder.record(2.0)  # type: ignore[attr-defined]
    assert called == [2.0]


def test_an_interruption_at_the_first_use_leaves_no_thread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    monkeypatch.setattr(dispatch.state, "beginning", Interrupted())
    monkeypatch.setattr(dispatch.state, "active", None)
    with pytest.raises(KeyboardInterrupt):
        track()
    assert dispatch.state.beginning == set()


def test_each_backend_that_is_switched_off_is_told_of(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    configure(app="shop_bot", backends=[Counting("finished"), Counting("finished"), ListBackend()])
    track_often()
    told = [text for text in warnings(caplog) if "is switched off" in text]
    assert [text.partition(" failed")[0] for text in told] == ["faulty", "faulty'"]


def test_a_pause_begins_with_the_fault_that_switches_a_backend_off(clock: Clock) -> None:
    faulty = Counting("finished")
    configure(app="shop_bot", backends=[faulty, ListBackend()])
    for _ in range(MOST_FAULTS):
        clock.now += 1
        assert faulty.calls_during(track).count("finished") == 1
    clock.now += FIRST_PAUSE - 0.25
    assert faulty.calls_during(track_often) == []
    clock.now += 0.25
    assert faulty.calls_during(track_often).count("finished") == 1


@pytest.mark.parametrize(("fault", "pause"), [(OSError, FIRST_PAUSE), (RecursionError, 0.25)])
def test_a_hook_that_failed_is_asked_after_a_pause_and_at_once_where_the_stack_was_at_its_end(
    fault: type[Exception], pause: float, clock: Clock
) -> None:
    asked: list[float] = []

    class Faulty:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> object:
            asked.append(clock.now)
            raise fault

    configure(app="shop_bot", backends=[Faulty(), ListBackend()])
    track()
    start = clock.now
    while asked[-1] == start:
        clock.now += 0.25
        track()
    assert pause <= asked[-1] - start <= pause + 0.25


def test_everything_is_bound_anew_at_most_so_often(clock: Clock) -> None:
    clock.now = 0.0
    forgotten: list[float] = []
    health = Health(lambda: forgotten.append(clock.now))
    assert health.due
    health.failed(False)
    clock.now += REBIND_AFTER
    health.failed(False)
    clock.now += REBIND_AFTER - 0.01
    health.failed(False)
    assert forgotten == [0, REBIND_AFTER]


def test_a_backend_that_takes_events_gets_those_after_its_fault(clock: Clock) -> None:
    class Moody(MemoryBackend):
        failing = True

        def add(self, record: Any) -> None:
            if self.failing:
                raise OSError("not yet")
            super().add(record)

    moody = Moody()
    configure(app="shop_bot", backends=[moody, ListBackend()])
    track()
    moody.failing = False
    clock.now += REBIND_AFTER
    track()
    with action_tracking("menu_handler") as tracker:
        tracker.to_fail("timeout")
    assert [(event.status, event.error_name) for event in moody.events] == [("ok", ""), ("error", "timeout")]


def test_threads_that_record_at_the_same_time_are_no_recursion() -> None:
    inside, done, recorded = threading.Event(), threading.Event(), []

    def finished(number: int) -> None:
        if number == 1:
            inside.set()
            done.wait(30)
        recorded.append(number)

    watched = Watched(Health(lambda: None), SimpleNamespace(finished=finished))
    thread = threading.Thread(target=watched.finished, args=(1,))  # type: ignore[attr-defined]
    thread.start()
    inside.wait(30)
    watched.finished(2)  # type: ignore[attr-defined]
    done.set()
    thread.join()
    assert recorded == [2, 1]


def test_a_function_that_may_not_be_nested_is_called_by_each_thread_and_again_and_again() -> None:
    inside, done, called = threading.Event(), threading.Event(), []

    def function() -> bool:
        called.append(call())
        if threading.current_thread() is thread:
            inside.set()
            done.wait(30)
        return True

    call = not_nested(function)
    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(30)
    assert [call(), call()] == [True, True]
    done.set()
    thread.join()
    assert called == [None, None, None]
