import math
import os
import signal
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llm_common import action_tracking, bound, configure, http_tracking
from llm_common.backends import batching, extra_series, http_series, memory
from llm_common.backends.action_series import ActionSeries
from llm_common.backends.batching import counted
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.backends.store import BatchedStore
from llm_common.catalog import ACTION_DURATION_BUCKETS, ACTION_FIRST_ITEM, Buckets
from llm_common.contract import FOLD_AT, HttpSeries, Status
from llm_common.dispatch import override
from llm_common.testing.conformance.interruption import within

BUCKETS = Buckets((0.1, 1.0, 10.0), (0.5, 5.0), (10.0, 1000.0))


@given(st.lists(st.floats(0, 1e6) | st.sampled_from(ACTION_DURATION_BUCKETS)), st.integers(0, 5))
def test_durations_are_counted_as_one_by_one(durations: list[float], before: int) -> None:
    expected = [before] * (len(ACTION_DURATION_BUCKETS) + 1)
    earlier = tuple(expected)
    for seconds in durations:
        expected[bisect_left(ACTION_DURATION_BUCKETS, seconds)] += 1
    assert counted(list(durations), ACTION_DURATION_BUCKETS, earlier) == tuple(expected)


@given(st.lists(st.lists(st.floats(0, 1e9), max_size=30), max_size=20))
def test_the_sum_is_at_least_as_exact_as_adding_one_by_one(batches: list[list[float]]) -> None:
    series = BatchedStore(BUCKETS).action("a_task", "dev", "app")
    naive = 0.0
    for batch in batches:
        for seconds in batch:
            series.finished(Status.OK, seconds)
            naive += seconds
    series.fold_now()
    exact = math.fsum(seconds for batch in batches for seconds in batch)
    assert abs(series.totals.seconds - exact) <= abs(naive - exact)


def test_sizes_past_all_floating_point_numbers_become_infinite_and_harm_nothing_else() -> None:
    store = BatchedStore(BUCKETS)
    huge, other = store.action("huge_task", "dev", "app"), store.action("other_task", "dev", "app")
    for _ in range(3):
        huge.sized(1.7e308)
    other.sized(1)
    assert [totals.size for _, totals in store.action_totals()] == [math.inf, 1]
    huge.sized(1)
    assert [totals.size for _, totals in store.action_totals()] == [math.inf, 1]


def test_the_lists_stay_short_though_nobody_scrapes() -> None:
    series = BatchedStore(BUCKETS).action("a_task", "dev", "app")
    longest = 0
    for _ in range(10 * FOLD_AT):
        for status in Status:
            series.finished(status, 0.5)
        series.sized(1)
        longest = max(longest, len(series.ok), len(series.error), len(series._cancelled), len(series._sizes))
    assert longest < FOLD_AT
    assert series.totals.ok > 0


def test_the_same_labels_have_the_same_series() -> None:
    store = BatchedStore(BUCKETS)
    assert store.empty
    assert store.action("a_task", "dev", "app") is store.action("a_task", "dev", "app")
    assert store.action("a_task", "dev", "app") is not store.action("a_task", "prod", "app")
    assert not store.empty


def test_counts_are_exact_from_many_threads_with_scrapes_all_the_time() -> None:
    store = BatchedStore(BUCKETS)
    threads, actions = 8, 20_000
    running = threading.Event()

    def track() -> None:
        series = store.action("a_task", "dev", "app")
        for number in range(actions):
            series.finished(Status.OK if number % 2 else Status.ERROR, 0.5)
            series.sized(2)

    def scrape() -> None:
        previous = 0
        while not running.is_set():
            for _, totals in store.action_totals():
                assert totals.ok + totals.error == sum(totals.buckets) >= previous
                previous = totals.ok + totals.error

    workers = [threading.Thread(target=track) for _ in range(threads)]
    scraper = threading.Thread(target=scrape)
    scraper.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    running.set()
    scraper.join()
    ((_, totals),) = store.action_totals()
    assert (totals.ok, totals.error, totals.size) == (
        threads * actions / 2,
        threads * actions / 2,
        threads * actions * 2,
    )
    assert totals.seconds == threads * actions * 0.5


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Make something happen in the middle of the next fold."""
    original = math.fsum
    pending: list[Callable[[], Any]] = []

    def interruptible(values: Any) -> float:
        if pending:
            pending.pop()()
        return original(values)

    monkeypatch.setattr(batching, "fsum", interruptible)
    yield pending.append
    assert pending == []


def test_tracking_and_scraping_in_the_middle_of_a_fold_lose_and_double_nothing(
    interrupted: Callable[[Callable[[], Any]], None],
) -> None:
    store = BatchedStore(BUCKETS)
    series = store.action("a_task", "dev", "app")

    def reenter() -> None:
        for _ in range(2 * FOLD_AT):
            series.finished(Status.OK, 0.5)
        assert store.action_totals() == []

    series.finished(Status.OK, 0.5)
    interrupted(reenter)
    store.action_totals()
    ((_, totals),) = store.action_totals()
    assert totals.ok == 2 * FOLD_AT + 1 == sum(totals.buckets)


def test_a_signal_handler_that_tracks_during_a_fold_neither_deadlocks_nor_loses(
    interrupted: Callable[[Callable[[], Any]], None],
) -> None:
    store = BatchedStore(BUCKETS)
    series = store.action("a_task", "dev", "app")
    previous = signal.signal(signal.SIGUSR1, lambda *_: series.finished(Status.ERROR, 2.0))
    try:
        series.finished(Status.OK, 0.5)
        interrupted(lambda: signal.raise_signal(signal.SIGUSR1))
        store.action_totals()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    ((_, totals),) = store.action_totals()
    assert (totals.ok, totals.error) == (1, 1)


def test_a_fold_that_is_interrupted_by_an_exception_is_done_by_the_next(
    interrupted: Callable[[Callable[[], Any]], None],
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    store = BatchedStore(BUCKETS)
    series = store.action("a_task", "dev", "app")
    series.finished(Status.OK, 0.5)
    interrupted(interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.action_totals()
    ((_, totals),) = store.action_totals()
    assert totals.ok == 1


def test_whoever_tracks_does_not_wait_for_a_scrape_under_way() -> None:
    store = BatchedStore(BUCKETS)
    series = store.action("a_task", "dev", "app")
    reached, released = threading.Event(), threading.Event()

    class Slow(ActionSeries):
        __slots__ = ()

        def fold_now(self) -> None:
            reached.set()
            assert released.wait(30)

    store._actions["slow", "", ""] = Slow(store._folder, ("slow", "", ""), (1.0,), series.templates)
    scraper = threading.Thread(target=store.action_totals)
    scraper.start()
    assert reached.wait(30)
    for _ in range(2 * FOLD_AT):
        series.finished(Status.OK, 0.5)  # would hang here, were there a lock to wait for
    released.set()
    scraper.join()
    del store._actions["slow", "", ""]
    ((_, totals),) = store.action_totals()
    assert totals.ok == 2 * FOLD_AT


def test_who_is_alone_at_the_end_of_the_interpreter_waits_for_no_thread_that_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, records = BatchedStore(BUCKETS), memory.MemoryBackend()
    series = store.action("a_task", "dev", "app")
    held, release = threading.Event(), threading.Event()

    def stand_still() -> None:
        with store._folder._lock, records._lock, bound.size_lock:
            held.set()
            release.wait(30)

    def track() -> None:
        for _ in range(FOLD_AT):
            series.finished(Status.OK, 0.5)
        with override(backends=(records,)), action_tracking("a_task") as tracker:
            tracker.size(1)

    thread = threading.Thread(target=stand_still)
    thread.start()
    held.wait(30)
    monkeypatch.setattr("llm_common.ending.is_finalizing", lambda: True)
    try:
        within(20, track, "tracking")
    finally:
        release.set()
        thread.join()
    assert series.totals.ok == FOLD_AT
    assert [event.size for event in records.events] == [1]


def test_what_was_measured_is_folded_as_soon_as_there_is_enough_of_it() -> None:
    store = BatchedStore(BUCKETS)
    action, http = store.action("a_task", "dev", "app"), store.http(HttpSeries("GET", "200", "a", "web"), "dev", "app")
    extra = store.metric(ACTION_FIRST_ITEM, ("a_task", "dev", "app"))
    measured: list[tuple[int, Callable[[], None], Callable[[], float | None]]] = [
        (FOLD_AT, lambda: action.finished(Status.ERROR, 1.0), lambda: action.totals.error),
        (FOLD_AT, lambda: action.finished(Status.CANCELLED, 1.0), lambda: action.totals.cancelled),
        (FOLD_AT, lambda: action.sized(1), lambda: action.totals.size),
        (http_series.FOLD_AT, lambda: http.finished(1.0, 1, 1), lambda: http.totals.exchanges),
        (extra_series.FOLD_AT, lambda: extra.record(1.0), lambda: extra.sum.amount),
    ]
    for enough, measure, folded in measured:
        for _ in range(enough - 1):
            measure()
        assert not folded()
        measure()
        assert folded() == enough


def test_what_is_recorded_in_the_middle_of_a_fold_counts_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    series = BatchedStore(BUCKETS).metric(ACTION_FIRST_ITEM, ("a_task", "dev", "app"))

    def interrupted(numbers: Iterable[float]) -> float:
        series.record(4.0)
        return batching.total(numbers)

    series.record(2.0)
    with monkeypatch.context() as patch:
        patch.setattr(extra_series, "total", interrupted)
        series.fold_now()
    assert series.sum.amount == 2
    series.fold_now()
    assert series.sum.amount == 6


def test_a_child_process_starts_with_a_free_lock() -> None:
    store = BatchedStore(BUCKETS)
    store.action("a_task", "dev", "app").finished(Status.OK, 0.5)
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        with store._folder._lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:  # pragma: no cover - the child is not measured
        signal.alarm(30)  # it would wait for ever
        before = len(store.action_totals())
        store.action("a_task", "dev", "app").finished(Status.OK, 0.5)
        os._exit(10 * before + len(store.action_totals()))
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


FORKED = (
    "llm_common: process {process} was forked, and counts for itself: its scrape shows neither its parent's counts nor "
    "those of the parent's other children. With the Prometheus backend, set PROMETHEUS_MULTIPROC_DIR to an empty "
    "directory before the processes start, so that each shows the sum of all."
)


def test_everything_works_in_a_child_process_and_one_of_them_warns_with_the_fix(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batching, "_warned", mmap(-1, 1))
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[PrometheusBackend(registry), memory], extra_metrics="all", strict=True)

    def work() -> None:
        with action_tracking("a_task") as tracker:
            tracker.size(1)
            tracker.first_item()
        http_tracking("web", "order", "GET", 1, 200, 0.1, 1)

    def shown() -> dict[str, float]:
        families = registry.collect()
        return {one.name: one.value for family in families for one in family.samples if "bucket" not in one.name}

    work()
    for warnings in (1, 0):
        child = os.fork()
        if not child:  # pragma: no cover - the child is not measured
            signal.alarm(30)
            status = 1
            try:
                work()
                work()
                assert shown()["genapp_action_count_total"] == shown()["genapp_action_size_total"] == 2
                assert shown()["genapp_http_requests_total"] == shown()["genapp_action_first_item_sec_count"] == 2
                configure(app="shop_bot", backends=[PrometheusBackend(CollectorRegistry()), memory])
                work()
                assert [record.getMessage() for record in caplog.records] == warnings * [
                    FORKED.format(process=os.getpid())
                ]
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shown()["genapp_action_count_total"] == 1


def test_a_log_handler_that_is_broken_keeps_no_child_from_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(batching, "_warned", mmap(-1, 1))
    monkeypatch.setattr(batching, "_forked", True)
    monkeypatch.setattr(batching.logger, "warning", broken)
    BatchedStore(BUCKETS).action("a_task", "dev", "app").finished(Status.OK, 0.5)
