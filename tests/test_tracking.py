import asyncio
import threading
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from llm_common import action_tracking, action_tracking_decorator, configure, current_action
from llm_common.contract import Status
from llm_common.errors import TrackingError
from llm_common.testing import ActionEvent, record_metrics
from llm_common.tracker import NO_ACTION
from recording import FaultyBackend, ListBackend


@pytest.fixture
def backend() -> ListBackend:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    return backend


def test_a_block_that_ends_normally_counts_once_as_ok(backend: ListBackend) -> None:
    with action_tracking("menu_handler"):
        assert backend.calls == []
    assert backend.calls == [("menu_handler", "ok")]
    assert len(backend.seconds) == 1
    assert backend.seconds[0] >= 0


def test_an_exception_passes_through_untouched_and_counts_as_error(backend: ListBackend) -> None:
    raised = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught, action_tracking("menu_handler"):
        raise raised
    assert caught.value is raised
    assert raised.__cause__ is None
    assert raised.__context__ is None
    assert [entry.name for entry in caught.traceback] == [
        "test_an_exception_passes_through_untouched_and_counts_as_error"
    ]
    assert backend.calls == [("menu_handler", "error")]


@pytest.mark.parametrize("exception", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_an_exception_that_is_no_fault_counts_as_cancelled(
    backend: ListBackend, exception: type[BaseException]
) -> None:
    with pytest.raises(exception), action_tracking("menu_handler"):
        raise exception
    assert backend.calls == [("menu_handler", "cancelled")]


def test_to_fail_makes_a_normal_end_an_error(backend: ListBackend) -> None:
    with action_tracking("menu_handler") as tracker:
        tracker.to_fail()
    assert backend.calls == [("menu_handler", "error")]


def test_cancelling_after_to_fail_is_still_cancelled(backend: ListBackend) -> None:
    with pytest.raises(asyncio.CancelledError), action_tracking("menu_handler") as tracker:
        tracker.to_fail("late")
        raise asyncio.CancelledError
    assert backend.calls == [("menu_handler", "cancelled")]


def test_sizes_are_added_at_once_and_as_often_as_given(backend: ListBackend) -> None:
    with action_tracking("reindex_task") as tracker:
        tracker.size(3)
        assert backend.calls == [("reindex_task", 3)]
        tracker.size(0.5)
    assert backend.calls == [("reindex_task", 3), ("reindex_task", 0.5), ("reindex_task", "ok")]


@pytest.mark.parametrize("amount", [-1, "x", "5", None, float("nan"), float("inf"), 10**400, [1], 1j])
def test_an_impossible_size_is_left_out_and_logged_once(
    backend: ListBackend, amount: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with action_tracking("reindex_task") as tracker:
            tracker.size(amount)
    assert backend.calls == [("reindex_task", "ok")] * 2
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "is no size; accepted: a finite number that isn't negative" in record.getMessage()


@pytest.mark.parametrize("amount", [-1, "x", float("nan"), float("inf")])
def test_an_impossible_size_raises_in_strict_mode_and_the_action_still_counts(amount: Any) -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], strict=True)
    with pytest.raises(TrackingError, match="is no size"), action_tracking("reindex_task") as tracker:
        tracker.size(amount)
    assert backend.calls == [("reindex_task", "error")]


def test_an_amount_that_can_be_neither_converted_nor_shown_is_left_out(backend: ListBackend) -> None:
    class Broken:
        def __float__(self) -> float:
            raise RuntimeError("not today")

        def __repr__(self) -> str:
            raise RuntimeError("not this either")

    with action_tracking("reindex_task") as tracker:
        tracker.size(Broken())  # type: ignore[arg-type]
        tracker.size(10**5000)
    assert backend.calls == [("reindex_task", "ok")]


def test_sums_of_absurd_sizes_harm_nobody() -> None:
    with record_metrics() as recorded, action_tracking("reindex_task") as tracker:
        for amount in (10**308, 10**308, 0.5):
            tracker.size(amount)
    assert recorded.events == [ActionEvent("reindex_task", "ok", float("inf"))]


def test_any_kind_of_number_is_a_size() -> None:
    with record_metrics() as recorded, action_tracking("reindex_task") as tracker:
        for amount in (1, 0.5, Decimal("0.25"), Fraction(1, 8), True):
            tracker.size(amount)  # type: ignore[arg-type]
    assert recorded.events == [ActionEvent("reindex_task", "ok", 2.875)]


@pytest.mark.parametrize("strict", [False, True])
def test_a_size_outside_of_the_block_belongs_to_no_action(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], strict=strict)
    early = action_tracking("menu_handler")
    with action_tracking("menu_handler") as late:
        pass
    for tracker in (early, late):
        if strict:
            with pytest.raises(TrackingError, match=r"size\(\) was called outside the block"):
                tracker.size(1)
        else:
            tracker.size(1)
    assert backend.calls == [("menu_handler", "ok")]
    assert len(caplog.records) == (0 if strict else 1)


def test_an_asynchronous_with_is_an_error_that_shows_the_plain_one() -> None:
    configure(app="shop_bot", backends=[ListBackend()])

    async def main() -> None:
        async with action_tracking("menu_handler"):  # type: ignore[attr-defined]
            pass

    with pytest.raises(TypeError, match="write a plain with, also in async code"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (None, "None"),
        (print, "the function print"),
        (ListBackend, "the class ListBackend"),
        (partial(print), repr(partial(print))),
        (asyncio, f"{asyncio!r:.100}"),
        (5, "5"),
        ([], "[]"),
    ],
)
def test_a_name_that_cannot_be_one_raises_where_it_stands(name: Any, what: str) -> None:
    with pytest.raises(TypeError) as caught:
        action_tracking(name)
    assert str(caught.value) == (
        f'an action\'s name must be a string, not {what}. Write: with action_tracking("menu_handler") as tracker: '
        'or, above a function: @action_tracking_decorator("menu_handler")'
    )


def test_an_empty_name_raises_where_it_stands() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text follows
        action_tracking("")
    assert str(caught.value) == 'an action\'s name is empty; write for example action_tracking("menu_handler")'


OUTSIDE = {
    "size": "size() was called outside the block, where it belongs to no action",
    "to_fail": "to_fail() was called outside the block, where it can't change the status",
    "tokens": "tokens() was called outside the block, where it belongs to no action",
    "first_item": "first_item() was called outside the block, where nothing is streamed",
}


def test_what_is_called_outside_of_the_block_is_told_once_each(
    backend: ListBackend, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        tracker = action_tracking("menu_handler")
        tracker.size(1)
        tracker.to_fail()
        tracker.tokens("small", input=1)
        tracker.first_item()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"action 'menu_handler': {text}" for text in OUTSIDE.values()]


def test_a_type_error_of_a_backend_is_not_taken_for_a_wrong_name() -> None:
    class Wrong(FaultyBackend):
        def fail(self, operation: str) -> None:
            raise TypeError("from the backend")

    configure(app="shop_bot", backends=[Wrong()], strict=True)
    with pytest.raises(TypeError, match="from the backend"):
        action_tracking("menu_handler")


def test_a_tracker_is_no_decorator_and_says_which_is() -> None:
    configure(app="shop_bot", backends=[ListBackend()])
    with pytest.raises(TypeError, match=r"@action_tracking_decorator\(.menu_handler.\)"):
        action_tracking("menu_handler")(print)


def test_a_tracker_serves_one_block(backend: ListBackend) -> None:
    tracker = action_tracking("menu_handler")
    with tracker, pytest.raises(RuntimeError, match="in use already"):
        tracker.__enter__()
    with pytest.raises(RuntimeError, match="was used before; begin each block with its own"):
        tracker.__enter__()
    assert backend.calls == [("menu_handler", "ok")]


def test_to_fail_after_the_block_is_logged_once(backend: ListBackend, caplog: pytest.LogCaptureFixture) -> None:
    with action_tracking("menu_handler") as tracker:
        pass
    tracker.to_fail()
    tracker.to_fail()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "outside the block" in caplog.text


def test_to_fail_after_the_block_raises_in_strict_mode() -> None:
    configure(app="shop_bot", backends=[ListBackend()], strict=True)
    with action_tracking("menu_handler") as tracker:
        pass
    with pytest.raises(TrackingError, match="outside the block"):
        tracker.to_fail()


def test_the_current_action_is_the_innermost_one_that_runs(backend: ListBackend) -> None:
    assert current_action() is NO_ACTION
    with action_tracking("support_agent") as outer:
        assert current_action() is outer
        with action_tracking("answer_llm_call") as inner:
            assert current_action() is inner
        assert current_action() is outer
    assert current_action() is NO_ACTION


def test_outside_of_any_action_the_current_one_does_nothing(backend: ListBackend) -> None:
    current_action().size(5)
    current_action().size("nonsense")  # type: ignore[arg-type]
    current_action().to_fail()
    assert backend.calls == []
    assert repr(current_action()) == "<NoAction>"


def test_the_current_action_is_right_when_blocks_end_in_another_order(backend: ListBackend) -> None:
    first, second = action_tracking("first_task"), action_tracking("second_task")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current_action() is second
    second.__exit__(None, None, None)
    assert current_action() is NO_ACTION


def test_blocks_that_overlap_for_ever_keep_no_ended_trackers_alive(backend: ListBackend) -> None:
    before = action_tracking("step_task").__enter__()
    for _ in range(50):
        after = action_tracking("step_task").__enter__()
        before.__exit__(None, None, None)
        before = after
    depth, tracker = 0, before
    while tracker is not NO_ACTION:
        tracker, depth = tracker._outer, depth + 1
    before.__exit__(None, None, None)
    assert depth <= 3


def test_each_task_and_thread_has_its_own_current_action(backend: ListBackend) -> None:
    async def child(name: str) -> None:
        outer = current_action()
        with action_tracking(name) as tracker:
            await asyncio.sleep(0)
            assert current_action() is tracker
        assert current_action() is outer

    async def parent() -> None:
        with action_tracking("support_agent") as tracker:
            await asyncio.gather(*(child(f"c{number}_llm_call") for number in range(5)))
            assert current_action() is tracker

    asyncio.run(parent())
    seen: list[object] = []
    with action_tracking("support_agent"):
        thread = threading.Thread(target=lambda: seen.append(current_action()))
        thread.start()
        thread.join()
    assert seen == [NO_ACTION]


def test_a_task_that_outlives_the_action_around_it_steps_over_it(backend: ListBackend) -> None:
    async def late(gate: asyncio.Event) -> object:
        await gate.wait()
        return current_action()

    async def main() -> object:
        gate = asyncio.Event()
        with action_tracking("support_agent"):
            task = asyncio.create_task(late(gate))
            await asyncio.sleep(0)
        gate.set()
        return await task

    assert asyncio.run(main()) is NO_ACTION


def test_a_tracker_shows_its_name_and_whether_it_runs(backend: ListBackend) -> None:
    tracker = action_tracking("menu_handler")
    assert repr(tracker) == "<ActionTracker 'menu_handler' not running>"
    with tracker:
        assert repr(tracker) == "<ActionTracker 'menu_handler' running>"


def test_with_noop_everything_works_and_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    configure(app="shop_bot", backends=["noop"])
    with action_tracking("menu_handler") as tracker:
        tracker.size(3)
        tracker.to_fail()
        assert current_action() is NO_ACTION
    tracker.to_fail()
    assert action_tracking_decorator("menu_handler")(len)([1]) == 1
    assert caplog.records == []
    tracker.size(-1)
    assert "is no size" in caplog.text


def test_a_plugin_can_classify_an_exception_otherwise(backend: ListBackend, caplog: pytest.LogCaptureFixture) -> None:
    from llm_common import hookimpl

    class Classifier:
        @hookimpl
        def llm_common_classify_exception(self, exception: BaseException) -> object:
            if isinstance(exception, TimeoutError):
                return Status.CANCELLED
            return "nonsense" if isinstance(exception, KeyError) else None

    configure(app="shop_bot", backends=[backend], plugins=[Classifier()])
    for exception in (TimeoutError, ValueError, KeyError, SystemExit):
        with pytest.raises(exception), action_tracking("menu_handler"):
            raise exception
    assert [status for _, status in backend.calls] == ["cancelled", "error", "error", "cancelled"]
    assert "llm_common_classify_exception raised ValueError" in caplog.text
