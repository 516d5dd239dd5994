"""Threads and tasks by the thousand: each action counts once, with the right status, whatever scrapes meanwhile.

``ACTIONS=1000000`` lets each of the 16 threads track as many actions, instead of 2,000, and ``TASKS`` is the number of
tasks.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import crowds
from llm_common import action_tracking, action_tracking_decorator, configure, hookimpl
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.prometheus import render_metrics
from scraping import action_totals, parsed
from servers import unmeasured

pytestmark = pytest.mark.e2e

ACTIONS = int(os.environ.get("ACTIONS", "2000"))
THREADS = 16
TASKS = int(os.environ.get("TASKS", "2000"))


def tell(what: str, actions: int, scrapes: int, seconds: float) -> None:
    number = THREADS * actions
    print(
        f"\nthreads, {what}: {THREADS} x {actions:,}: counted {number:,}, lost 0, {scrapes} scrapes ({seconds:.0f} s)"
    )


class Tally:
    """A backend that only counts, as one of somebody else may."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    @hookimpl
    def llm_common_bind_action(self, name: str) -> Any:
        return self

    def finished(self, status: str, seconds: float) -> None:
        self.statuses.append(str(status))

    def sized(self, amount: float) -> None: ...


@pytest.mark.parametrize("what", ["the Prometheus backend", "with other backends", "with all extra metrics"])
def test_threads_lose_nothing_while_scrapes_go_on_all_the_time(what: str) -> None:
    backend, memory, tally = PrometheusBackend(CollectorRegistry()), MemoryBackend(limit=1000), Tally()
    actions = ACTIONS
    if what == "the Prometheus backend":
        configure(app="shop", backends=[backend], strict=True)
    elif what == "with other backends":
        actions = max(ACTIONS // 10, 100)  # they take their time, and their memory
        configure(app="shop", backends=[backend, memory, tally], strict=True)
    else:
        actions = max(ACTIONS // 10, 100)
        configure(app="shop", backends=[backend], extra_metrics="all", strict=True)
    tell(what, actions, *crowds.crowd(actions, THREADS, one_process=True))
    if what == "with other backends":
        expected = crowds.expected(actions, THREADS)
        assert Counter(tally.statuses) == {status: expected[status] for status in ("ok", "error", "cancelled")}
        recorded = expected["observed"] * 16 // 10 + expected["exchanges"]  # six of ten give a size too
        assert memory.dropped + len(memory.records) == recorded


@pytest.mark.parametrize("extras", ["", "all"])
def test_threads_lose_nothing_where_values_go_to_files(extras: str, tmp_path: Path) -> None:
    actions = max(ACTIONS // (10 if extras else 4), 100)  # each write takes the lock that all of them want
    environ = {**unmeasured(), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "LLM_COMMON_EXTRA_METRICS": extras}
    command = [sys.executable, "-m", "crowds", str(actions), str(THREADS)]
    done = subprocess.run(
        command, cwd=Path(crowds.__file__).parent, env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    tell(f"files{', with all extra metrics' if extras else ''}", actions, *json.loads(done.stdout))
    expected = crowds.expected(actions, THREADS)
    left: Counter[str] = Counter()
    for (_, status), times in action_totals(tmp_path, "shop").items():
        left[status] += int(times)
    assert left == {status: expected[status] for status in ("ok", "error", "cancelled")}


class NoAnswerError(Exception):
    """What some tasks are left by."""


class Tasks:
    """Coroutines that track, and a witness inside each action that sees how its block was left."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.seen: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def witness(self, name: str, fails: bool = False) -> Iterator[None]:
        """Write down what the action around it must be counted as."""
        try:
            yield
        except Exception:
            self.seen[name, "error"] += 1
            raise
        except BaseException:
            self.seen[name, "cancelled"] += 1
            raise
        else:
            self.seen[name, "error" if fails else "ok"] += 1

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.choice([0, 0, 0.001, 0.005, 0.02]))

    async def plain(self) -> None:
        fails = self.chance.random() < 0.2
        with action_tracking("plain_handler") as tracker, self.witness("plain_handler", fails):
            if fails:
                tracker.to_fail()
            await self.pause()
            if self.chance.random() < 0.2:
                raise NoAnswerError

    async def decorated(self) -> None:
        @action_tracking_decorator("decorated_handler")
        async def handler() -> None:
            with self.witness("decorated_handler"):
                await self.pause()

        await handler()

    async def cleaning_up(self) -> None:
        @asynccontextmanager
        async def connection() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await self.pause()
                await self.pause()  # where a second cancellation may come

        with action_tracking("cleaning_handler"), self.witness("cleaning_handler"):
            async with connection():
                await self.pause()

    async def stubborn(self) -> None:
        with action_tracking("stubborn_task"), self.witness("stubborn_task"):
            try:
                await self.pause()
            except asyncio.CancelledError:
                if self.chance.random() < 0.5:
                    raise NoAnswerError from None
                await self.pause()

    async def timing_out(self) -> None:
        with action_tracking("patient_llm_call"), self.witness("patient_llm_call"):
            async with asyncio.timeout(0.003):
                with action_tracking("slow_llm_call"), self.witness("slow_llm_call"):
                    await self.pause()

    async def grouping(self) -> None:
        async def member() -> None:
            with action_tracking("member_agent"), self.witness("member_agent"):
                await self.pause()
                if self.chance.random() < 0.3:
                    raise NoAnswerError

        with action_tracking("group_agent"), self.witness("group_agent"):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(member())

    async def shielding(self) -> None:
        async def protected() -> None:
            with action_tracking("protected_task"), self.witness("protected_task"):
                await self.pause()

        with action_tracking("shielding_task"), self.witness("shielding_task"):
            await asyncio.shield(protected())

    async def streaming(self) -> None:
        @action_tracking_decorator("stream_llm_call")
        async def words() -> AsyncIterator[int]:
            with self.witness("stream_llm_call"):
                for number in range(3):
                    await self.pause()
                    yield number

        stream = words()
        async for number in stream:
            if number and self.chance.random() < 0.3:
                break  # which closes nothing: the loop does, when the stream is forgotten
        await self.pause()

    async def run(self, number: int) -> int:
        """Run as many tasks and cancel a third of them at random moments; return how many were cancelled."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *(self.plain, self.decorated, self.cleaning_up, self.stubborn),
            *(self.timing_out, self.grouping, self.shielding, self.streaming),
        ]
        tasks = [asyncio.ensure_future(self.chance.choice(kinds)()) for _ in range(number)]
        cancelled = 0
        for task in self.chance.sample(tasks, number // 20):
            cancelled += task.cancel()  # before its first step
        while not all(task.done() for task in tasks):
            for task in self.chance.choices(tasks, k=number // 50):
                cancelled += task.cancel()  # also one that is being cancelled already
            await asyncio.sleep(0.001)
            if cancelled > number // 3:
                break
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        return cancelled


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("extras", [(), ("in_progress", "first_item")], ids=["", "extras"])
def test_tasks_that_are_cancelled_at_random_moments_count_once_each(seed: int, extras: tuple[str, ...]) -> None:
    configure(app="shop", backends=[PrometheusBackend(CollectorRegistry())], extra_metrics=extras, strict=True)
    began = perf_counter()
    tasks = Tasks(seed)
    cancelled = asyncio.run(tasks.run(TASKS))
    values = parsed(render_metrics()[0].decode())
    counted: Counter[tuple[str, str]] = Counter(
        {
            (dict(pairs)["name"], dict(pairs)["status"]): int(value)
            for (metric, pairs), value in values.items()
            if metric == "genapp_action_count_total"
        }
    )
    assert counted == tasks.seen
    in_progress = {value for (metric, _), value in values.items() if metric == "genapp_action_in_progress"}
    assert in_progress == ({0} if extras else set())
    by_status: Counter[str] = Counter()
    for (_, status), times in counted.items():
        by_status[status] += times
    print(
        f"\nasyncio: {TASKS:,} tasks at once, {cancelled:,} cancellations; actions: {tasks.seen.total():,} left, "
        f"{counted.total():,} counted ({dict(by_status)}), lost 0 ({perf_counter() - began:.0f} s)"
    )
