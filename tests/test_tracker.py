"""The kinds of tracker, each with and without being findable: the same behaviour, on paths of different length."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from llm_common import action_tracking, action_tracking_decorator, configure, dispatch
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import FOLD_AT
from llm_common.prometheus import render_metrics
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
        call(raised)
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
    with tracker, pytest.raises(RuntimeError, match="in use already"):
        tracker.__enter__()
    with pytest.raises(RuntimeError, match="was used before"):
        tracker.__enter__()
    assert counts() == {"ok": 1}


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
