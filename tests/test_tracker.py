"""The kinds of tracker, each with and without being findable: the same behaviour, on paths of different length."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from llm_common import action_tracking, action_tracking_decorator, configure, current_action, dispatch, hookimpl
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import FOLD_AT, Status
from llm_common.current import adopt_running
from llm_common.prometheus import render_metrics
from llm_common.tracker import NO_ACTION
from recording import ListBackend
from scraping import parsed, series

Counts = Callable[[], dict[str, float]]


@pytest.fixture(params=[False, True], ids=["unfindable", "findable"])
def findable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(dispatch.state, "findable", request.param)
    return bool(request.param)


@pytest.fixture(params=["sampled", "general"])
def counts(request: pytest.FixtureRequest, findable: bool, registry: CollectorRegistry) -> Counts:
    """Configure one backend or two, and return what reads back how often each status was counted."""
    backends: list[object] = [PrometheusBackend(registry)]
    if request.param == "general":
        backends.append(ListBackend())
    configure(app="shop_bot", backends=backends, strict=True)

    def read() -> dict[str, float]:
        values = parsed(render_metrics(registry=registry)[0].decode())
        durations = series("genapp_action_duration_sec_count", name="menu_handler", env="dev", app="shop_bot")
        found = {
            dict(labels)["status"]: value
            for (name, labels), value in values.items()
            if name == "genapp_action_count_total"
        }
        assert values.get(durations, 0) == sum(found.values())
        seconds = series("genapp_action_duration_sec_sum", name="menu_handler", env="dev", app="shop_bot")
        assert 0 <= values.get(seconds, 0) < 60
        return found

    return read


def test_each_kind_of_block_is_counted_by_its_end(counts: Counts) -> None:
    with action_tracking("menu_handler"):
        pass
    with action_tracking("menu_handler") as tracker:
        tracker.to_fail()
    with pytest.raises(KeyError), action_tracking("menu_handler"):
        raise KeyError
    with pytest.raises(asyncio.CancelledError), action_tracking("menu_handler"):
        raise asyncio.CancelledError
    assert counts() == {"ok": 1, "error": 2, "cancelled": 1}


def test_each_kind_of_call_is_counted_by_its_end(counts: Counts) -> None:
    raised = KeyError("mine")

    @action_tracking_decorator("menu_handler")
    def call(exception: BaseException | None = None) -> str:
        if exception:
            raise exception
        return "done"

    assert call() == "done"
    with pytest.raises(KeyError) as caught:
        call(exception=raised)
    assert caught.value is raised
    assert raised.__context__ is None
    with pytest.raises(SystemExit):
        call(SystemExit())
    assert counts() == {"ok": 1, "error": 1, "cancelled": 1}


def test_each_kind_of_coroutine_and_generator_is_counted_by_its_end(counts: Counts) -> None:
    @action_tracking_decorator("menu_handler")
    async def coroutine() -> None:
        await asyncio.sleep(0)

    @action_tracking_decorator("menu_handler")
    def generator() -> Iterator[int]:
        yield 1
        yield 2

    asyncio.run(coroutine())
    assert list(generator()) == [1, 2]
    next(generator())
    assert counts() == {"ok": 2, "cancelled": 1}


def test_many_calls_and_blocks_are_all_counted(counts: Counts) -> None:
    @action_tracking_decorator("menu_handler")
    def call() -> None: ...

    for _ in range(3 * FOLD_AT):
        call()
    for _ in range(3 * FOLD_AT):
        with action_tracking("menu_handler"):
            pass
        with action_tracking("menu_handler") as tracker:
            tracker.to_fail()
    assert counts() == {"ok": 6 * FOLD_AT, "error": 3 * FOLD_AT}


def test_no_kind_of_tracker_can_be_entered_twice(counts: Counts) -> None:
    tracker = action_tracking("menu_handler")
    with (
        tracker,
        pytest.raises(RuntimeError, match=r"action 'menu_handler' is in use already.* action_tracking\('menu_ha"),
    ):
        tracker.__enter__()
    with pytest.raises(RuntimeError, match="was used before"):
        tracker.__enter__()
    assert counts() == {"ok": 1}


@pytest.mark.usefixtures("findable")
def test_an_event_tells_the_size_the_seconds_and_the_name_of_the_error() -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], strict=True)
    with action_tracking("menu_handler"):
        pass
    with action_tracking("menu_handler") as tracker:
        tracker.size(2)
        tracker.to_fail("timeout")
        tracker.size(3)
    with action_tracking("menu_handler") as tracker:
        tracker.to_fail()
    with pytest.raises(KeyError), action_tracking("menu_handler"):
        raise KeyError
    told = [(event.name, event.status, event.size, event.error_name) for event in memory.events]
    assert told == [
        ("menu_handler", Status.OK, None, ""),
        ("menu_handler", Status.ERROR, 5, "timeout"),
        ("menu_handler", Status.ERROR, None, ""),
        ("menu_handler", Status.ERROR, None, "KeyError"),
    ]
    assert all(0 < event.seconds < 60 for event in memory.events)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("extra_metrics", ["", "in_progress"])
def test_a_tracker_is_found_where_it_is_to_be_and_nowhere_else(
    findable: bool, several: bool, extra_metrics: str, registry: CollectorRegistry
) -> None:
    backends = [PrometheusBackend(registry), *([ListBackend()] if several else [])]
    configure(app="shop_bot", backends=backends, extra_metrics=extra_metrics, strict=True)
    with action_tracking("menu_handler") as tracker:
        assert current_action() is (tracker if findable else NO_ACTION)


def test_with_noop_a_call_has_its_arguments_and_its_result() -> None:
    configure(app="shop_bot", backends=["noop"], strict=True)

    @action_tracking_decorator("menu_handler")
    def call(*numbers: int, times: int = 1) -> int:
        return times * sum(numbers)

    assert call(1, 2, times=3) == 9


@pytest.mark.usefixtures("findable")
def test_a_recorder_that_takes_samples_folds_as_soon_as_there_are_as_many_as_agreed() -> None:
    class Sampling:
        def __init__(self) -> None:
            self.ok: list[float] = []
            self.error: list[float] = []
            self.folded: list[int] = []

        def fold(self) -> None:
            self.folded.append(len(self.ok))
            self.ok.clear()

        def finished(self, status: Status, seconds: float) -> None: ...

        def sized(self, amount: float) -> None: ...

    class Backend:
        recorder = Sampling()

        @hookimpl
        def llm_common_bind_action(self, name: str) -> Sampling:
            return self.recorder

    backend = Backend()
    configure(app="shop_bot", backends=[backend], strict=True)
    for _ in range(FOLD_AT):
        with action_tracking("menu_handler"):
            pass

    @action_tracking_decorator("menu_handler")
    def call() -> None: ...

    for _ in range(FOLD_AT):
        call()
    assert backend.recorder.folded == [FOLD_AT, FOLD_AT]


def test_a_call_that_was_made_current_while_it_ran_is_so_no_more_when_it_has_ended(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch.state, "findable", False)
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], strict=True)

    @action_tracking_decorator("menu_handler")
    def call() -> str:
        adopt_running()
        return repr(current_action())

    assert call() == "<ActionTracker 'menu_handler' running>"
    assert current_action() is NO_ACTION


def test_a_fold_that_fails_harms_nobody_and_raises_in_strict_mode(
    findable: bool, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llm_common.backends.action_series import ActionSeries

    def broken(self: ActionSeries) -> None:
        raise OSError("fold is broken")

    monkeypatch.setattr(ActionSeries, "fold", broken)
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    for _ in range(FOLD_AT + 1):
        with action_tracking("menu_handler"):
            pass
    assert "fold raised OSError" in caplog.text
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], strict=True)
    with pytest.raises(OSError, match="fold is broken"), action_tracking("menu_handler"):
        pass
