"""Loops of asyncio that do something again and again: the decorator is all that they need."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_common import action_tracking_decorator
from llm_common.testing import RecordedMetrics


async def tick(number: int, third_began: asyncio.Event) -> None:
    if number == 2:
        raise ConnectionError("no answer")
    if number == 3:
        third_began.set()
        await asyncio.get_running_loop().create_future()


Tick = Callable[[int, asyncio.Event], Awaitable[None]]


async def service(tick: Tick, failures: list[Exception], third_began: asyncio.Event) -> None:
    number = 0
    while True:
        number += 1
        try:
            await tick(number, third_began)
        except ConnectionError as failure:
            failures.append(failure)


async def until_the_third_tick(tick: Tick) -> list[Exception]:
    failures: list[Exception] = []
    third_began = asyncio.Event()
    task = asyncio.create_task(service(tick, failures, third_began))
    await asyncio.wait_for(third_began.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return failures


@pytest.mark.parametrize("tracking", [True, False])
def test_each_tick_counts_and_the_one_that_the_shutdown_cancels(
    tracking: bool, recorded_metrics: RecordedMetrics
) -> None:
    tracked_tick = action_tracking_decorator("refresh_task")(tick) if tracking else tick
    (failure,) = asyncio.run(until_the_third_tick(tracked_tick))
    assert repr(failure) == "ConnectionError('no answer')"
    statuses = [(event.name, event.status) for event in recorded_metrics.events]
    assert statuses == ([("refresh_task", status) for status in ("ok", "error", "cancelled")] if tracking else [])
