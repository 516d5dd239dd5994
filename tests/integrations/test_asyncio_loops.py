"""Loops of asyncio that do something again and again: the decorator is all that they need."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import pytest

from llm_common import action_tracking_decorator
from llm_common.testing import RecordedMetrics, record_metrics


class NoAnswerError(Exception):
    """What a tick raises here."""


NO_ANSWER = NoAnswerError("no answer")


class Journal:
    """What happened, in that order."""

    def __init__(self) -> None:
        self.entries: list[object] = []
        self.last_tick_began = asyncio.Event()


async def tick(number: int, *, journal: Journal) -> str:
    journal.entries.append(f"tick {number}")
    await asyncio.sleep(0)
    if number == 2:
        raise NO_ANSWER
    if number == 4:
        journal.last_tick_began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            journal.entries.append("tidied up")
    return f"ticked {number}"


Tick = Callable[..., Awaitable[str]]


async def service(tick: Tick, journal: Journal) -> None:
    number = 0
    while True:
        number += 1
        try:
            journal.entries.append(await tick(number, journal=journal))
        except NoAnswerError as failure:
            journal.entries.append(failure)


async def until_the_fourth_tick(tick: Tick) -> list[object]:
    journal = Journal()
    task = asyncio.create_task(service(tick, journal))
    await asyncio.wait_for(journal.last_tick_began.wait(), 60)
    task.cancel("shutdown")
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    return [*journal.entries, cancelled.value.args]


def test_each_tick_counts_and_the_loop_does_the_same_with_and_without_tracking(
    recorded_metrics: RecordedMetrics,
) -> None:
    with record_metrics() as without_tracking:
        expected = asyncio.run(until_the_fourth_tick(tick))
    assert without_tracking.events == []
    tracked_tick = action_tracking_decorator("refresh_task")(tick)
    assert asyncio.run(until_the_fourth_tick(tracked_tick)) == expected
    assert expected == [
        *("tick 1", "ticked 1", "tick 2", NO_ANSWER, "tick 3", "ticked 3", "tick 4", "tidied up"),
        ("shutdown",),
    ]
    statuses = [(event.name, event.status) for event in recorded_metrics.events]
    assert statuses == [("refresh_task", status) for status in ("ok", "error", "ok", "cancelled")]
    assert inspect.signature(tracked_tick) == inspect.signature(tick)


async def in_parallel(tick: Tick) -> list[object]:
    """Run a tick each in tasks of their own, one of which is cancelled."""
    journal = Journal()
    tasks = [asyncio.ensure_future(tick(number, journal=journal)) for number in (1, 2, 3, 4)]
    await asyncio.wait_for(journal.last_tick_began.wait(), 60)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [*journal.entries, *(type(one) if isinstance(one, asyncio.CancelledError) else one for one in results)]


def test_ticks_that_run_side_by_side_count_each_for_itself(recorded_metrics: RecordedMetrics) -> None:
    with record_metrics():
        expected = asyncio.run(in_parallel(tick))
    assert asyncio.run(in_parallel(action_tracking_decorator("refresh_task")(tick))) == expected
    assert expected[-4:] == ["ticked 1", NO_ANSWER, "ticked 3", asyncio.CancelledError]
    recorded_metrics.assert_action("refresh_task", status="ok", times=2)
    recorded_metrics.assert_action("refresh_task", status="error")
    recorded_metrics.assert_action("refresh_task", status="cancelled")
