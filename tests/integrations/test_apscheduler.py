"""APScheduler: real schedulers of each kind, with and without tracking."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_EXECUTOR_ADDED,
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
)
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.schedulers.tornado import TornadoScheduler
from sqlalchemy.pool import NullPool

import llm_common
from llm_common import action_tracking_decorator, current_action
from llm_common.integrations.apscheduler import track_jobs
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from scraping import action_totals

PATIENCE = 60
ENDED = EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED
UTC = UTC
PACKAGE = Path(llm_common.__file__).parent


class JobFailedError(Exception):
    """What jobs raise here."""


raised: list[JobFailedError] = []


def failure() -> JobFailedError:
    raised.append(JobFailedError("no paper"))
    return raised[-1]


def _2fa() -> None:
    """Have a name that begins with a digit, as names of actions are written."""


def print_report(copies: int = 1) -> str:
    return f"{copies} printed"


def failing() -> None:
    raise failure()


def leaving() -> None:
    raise SystemExit(3)


@action_tracking_decorator("decorated_task")
def decorated() -> str:
    return "decorated"


async def fetch() -> str:
    await asyncio.sleep(0)
    return "fetched"


async def failing_fetch() -> None:
    await asyncio.sleep(0)
    raise failure()


class Shop:
    def restock(self) -> str:
        return "restocked"

    @classmethod
    def audit(cls) -> str:
        return cls.__name__

    async def reprice(self) -> str:
        return "repriced"


class Backup:
    def __call__(self) -> str:
        return "saved"


class AsyncBackup:
    async def __call__(self) -> None: ...


class Watch:
    """Waits for the events of a scheduler."""

    def __init__(self, scheduler: BaseScheduler, mask: int = ENDED) -> None:
        self.arrived: Queue[Any] = Queue()
        scheduler.add_listener(self.arrived.put, mask)

    def events(self, number: int) -> list[JobExecutionEvent]:
        return [self.arrived.get(timeout=PATIENCE) for _ in range(number)]

    async def events_async(self, number: int) -> list[JobExecutionEvent]:
        return await asyncio.to_thread(self.events, number)


def seen(events: list[JobExecutionEvent]) -> list[tuple[Any, ...]]:
    """Return what an application could see of events."""
    return [
        (event.code, event.job_id, event.retval, repr(event.exception), own_frames(event.traceback)) for event in events
    ]


def own_frames(traceback: str | None) -> list[str]:
    """Return the lines of a traceback but for those of the decorator, which any decorator adds."""
    return [frame for frame in (traceback or "").split("  File ") if not frame.startswith(f'"{PACKAGE}')]


def soon(number: int = 0) -> datetime:
    """Return moments that are due, in the order of their numbers."""
    return datetime.now(UTC) - timedelta(seconds=30) + timedelta(seconds=number)


def add_jobs(scheduler: BaseScheduler, *functions: Any) -> None:
    """Add jobs that run at once, in order."""
    for number, function in enumerate(functions):
        scheduler.add_job(function, "date", run_date=soon(number), id=f"job {number}", misfire_grace_time=None)


def in_order() -> dict[str, ThreadPoolExecutor]:
    return {"default": ThreadPoolExecutor(1)}


@contextmanager
def background(**options: Any) -> Iterator[BackgroundScheduler]:
    scheduler = BackgroundScheduler(timezone=UTC, **{"executors": in_order(), **options})
    yield scheduler
    scheduler.shutdown()


def run_in_background(tracking: bool, *functions: Any) -> list[tuple[Any, ...]]:
    with background() as scheduler:
        watch = Watch(scheduler)
        if tracking:
            track_jobs(scheduler)
        add_jobs(scheduler, *functions)
        scheduler.start()
        return seen(watch.events(len(functions)))


def run_blocking(tracking: bool, *functions: Any) -> list[tuple[Any, ...]]:
    scheduler = BlockingScheduler(timezone=UTC, executors=in_order())
    watch = Watch(scheduler)
    if tracking:
        track_jobs(scheduler)
    add_jobs(scheduler, *functions)
    thread = threading.Thread(target=scheduler.start)
    thread.start()
    events = watch.events(len(functions))
    scheduler.shutdown()
    thread.join(PATIENCE)
    return seen(events)


def run_on_a_loop(kind: Callable[..., BaseScheduler], tracking: bool, *functions: Any) -> list[tuple[Any, ...]]:
    async def scenario() -> list[JobExecutionEvent]:
        scheduler = kind(timezone=UTC)
        watch = Watch(scheduler)
        if tracking:
            track_jobs(scheduler)
        add_jobs(scheduler, *functions)
        scheduler.start()
        events = await watch.events_async(len(functions))
        scheduler.shutdown()
        await asyncio.sleep(0)  # lets the scheduler, which calls itself back, do it
        return events

    return sorted(seen(asyncio.run(scenario())), key=lambda event: str(event[1]))  # functions run in several threads


SCHEDULERS = pytest.mark.parametrize(
    "run",
    [
        pytest.param(run_in_background, id="background"),
        pytest.param(run_blocking, id="blocking"),
        pytest.param(partial(run_on_a_loop, AsyncIOScheduler), id="asyncio"),
        pytest.param(partial(run_on_a_loop, TornadoScheduler), id="tornado"),
    ],
)
LOOPS = pytest.mark.parametrize("kind", [AsyncIOScheduler, TornadoScheduler])


def totals(recorded: RecordedMetrics) -> list[tuple[str, str]]:
    return sorted((event.name, event.status) for event in recorded.events)


@SCHEDULERS
def test_each_run_counts_once_and_nothing_else_changes(run: Any, recorded_metrics: RecordedMetrics) -> None:
    jobs = print_report, failing, leaving, decorated, failing, Shop().restock
    with record_metrics() as untracked:
        without = run(False, *jobs)
    assert totals(untracked) == [("decorated_task", "ok")]
    events = run(True, *jobs)
    assert events == without
    assert events[1][3] == "JobFailedError('no paper')"
    assert totals(recorded_metrics) == [
        ("decorated_task", "ok"),
        ("failing_task", "error"),
        ("failing_task", "error"),
        ("leaving_task", "cancelled"),
        ("print_report_task", "ok"),
        ("restock_task", "ok"),
    ]


@LOOPS
def test_coroutine_jobs(kind: Any, recorded_metrics: RecordedMetrics) -> None:
    jobs = fetch, failing_fetch, partial(fetch), Shop().reprice
    with record_metrics() as untracked:
        without = run_on_a_loop(kind, False, *jobs)
    assert totals(untracked) == []
    assert run_on_a_loop(kind, True, *jobs) == without
    assert without[0][2] == "fetched"
    assert without[1][3] == "JobFailedError('no paper')"
    assert totals(recorded_metrics) == [
        ("failing_fetch_task", "error"),
        ("fetch_task", "ok"),
        ("fetch_task", "ok"),
        ("reprice_task", "ok"),
    ]


def test_a_failure_reaches_listeners_as_the_same_object_with_its_frames(recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        add_jobs(scheduler, failing)
        scheduler.start()
        (event,) = watch.events(1)
    assert event.exception is raised[-1]
    assert "in failing\n    raise failure()\n" in event.traceback
    recorded_metrics.assert_action("failing_task", status="error")


@pytest.mark.parametrize("tracking", [True, False])
def test_a_coroutine_job_that_the_shutdown_cancels(tracking: bool, recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> list[Any]:
        scheduler = AsyncIOScheduler(timezone=UTC)
        started, happened = asyncio.Event(), list[Any]()

        async def endless() -> None:
            started.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                happened.append("tidied up")

        ended = asyncio.Event()

        def failed(event: JobExecutionEvent) -> None:
            happened.append(type(event.exception))
            ended.set()

        scheduler.add_listener(failed, EVENT_JOB_ERROR)
        if tracking:
            track_jobs(scheduler)
        add_jobs(scheduler, endless)
        scheduler.start()
        await asyncio.wait_for(started.wait(), PATIENCE)
        scheduler.shutdown()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        return happened

    assert asyncio.run(scenario()) == ["tidied up", asyncio.CancelledError]
    assert totals(recorded_metrics) == ([("endless_task", "cancelled")] if tracking else [])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (print_report, "print_report_task"),
        (partial(print_report, 2), "print_report_task"),
        (partial(partial(print_report), copies=2), "print_report_task"),
        (Shop().restock, "restock_task"),
        (Shop.audit, "audit_task"),
        (Backup(), "backup_task"),
        (Shop, "shop_task"),
        (lambda: None, "lambda_task"),
        (f"{__name__}:print_report", "print_report_task"),
        (max, "max_task"),
        (_2fa, "unnamed_2fa_task"),
    ],
)
def test_a_run_is_named_after_the_function(function: Any, name: str, recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        scheduler.add_job(function, args=[[1]] if function is max else ())
        scheduler.start()
        assert watch.events(1)[0].code == EVENT_JOB_EXECUTED
    assert totals(recorded_metrics) == [(name, "ok")]


@pytest.mark.filterwarnings("ignore:coroutine 'AsyncBackup.__call__' was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_the_executor_does_not_await_is_no_run(recorded_metrics: RecordedMetrics) -> None:
    for tracking in (True, False):
        ((code, _, returned, _, _),) = run_in_background(tracking, AsyncBackup())
        assert (code, asyncio.iscoroutine(returned)) == (EVENT_JOB_EXECUTED, True)
        returned.close()
    assert totals(recorded_metrics) == []


def test_each_run_time_that_is_caught_up_on_counts(recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        start = soon()
        every_second: dict[str, Any] = {
            "trigger": "interval",
            "seconds": 1,
            "start_date": start,
            "end_date": start + timedelta(seconds=3),
            "next_run_time": start,
            "misfire_grace_time": None,
        }
        scheduler.add_job(print_report, coalesce=False, **every_second)
        scheduler.add_job(Shop.audit, coalesce=True, **every_second)
        scheduler.start()
        watch.events(5)
    recorded_metrics.assert_action("print_report_task", status="ok", times=4)
    recorded_metrics.assert_action("audit_task", status="ok", times=1)


def test_a_run_that_was_missed_does_not_count(recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        scheduler.add_job(print_report, "date", run_date=soon(), misfire_grace_time=1)
        scheduler.start()
        assert watch.events(1)[0].code == EVENT_JOB_MISSED
    assert totals(recorded_metrics) == []


def test_a_run_that_is_skipped_does_not_count(recorded_metrics: RecordedMetrics) -> None:
    going_on = threading.Event()
    with background() as scheduler:
        skipped, ended = Watch(scheduler, EVENT_JOB_MAX_INSTANCES), Watch(scheduler)
        track_jobs(scheduler)

        def slow() -> None:
            going_on.wait(PATIENCE)

        scheduler.add_job(slow, "interval", seconds=0.05, max_instances=1, next_run_time=datetime.now(UTC))
        scheduler.start()
        skipped.events(2)
        scheduler.remove_all_jobs()
        going_on.set()
        ended.events(1)
    assert totals(recorded_metrics) == [("slow_task", "ok")]


def test_jobs_and_executors_that_are_added_later(recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch, added = Watch(scheduler), Watch(scheduler, EVENT_EXECUTOR_ADDED)
        track_jobs(scheduler)
        scheduler.configure(executors={"default": DebugExecutor()}, timezone=UTC)  # instead of what there was
        scheduler.start()
        scheduler.add_job(print_report)
        scheduler.add_executor("threadpool", "second", max_workers=1)
        scheduler.add_job(failing, executor="second")
        watch.events(2)
        assert {event.alias for event in added.events(2)} == {"default", "second"}
    assert totals(recorded_metrics) == [("failing_task", "error"), ("print_report_task", "ok")]


def test_a_scheduler_that_runs_already(recorded_metrics: RecordedMetrics) -> None:
    with background(executors={}) as scheduler:  # the default executor comes with the start
        watch = Watch(scheduler)
        scheduler.start()
        scheduler.add_job(print_report)
        watch.events(1)
        track_jobs(scheduler)
        scheduler.add_job(print_report)
        watch.events(1)
    assert totals(recorded_metrics) == [("print_report_task", "ok")]


def test_the_default_executor_that_a_start_creates(recorded_metrics: RecordedMetrics) -> None:
    with background(executors={}) as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        scheduler.add_job(print_report)
        scheduler.start()
        watch.events(1)
    assert totals(recorded_metrics) == [("print_report_task", "ok")]


def test_an_executor_of_ones_own_gets_what_looks_like_the_job(recorded_metrics: RecordedMetrics) -> None:
    submitted = []

    class Curious(DebugExecutor):  # type: ignore[misc]
        def submit_job(self, job: Job, run_times: list[datetime]) -> None:
            submitted.append((job, isinstance(job, Job), str(job), job.name, job.trigger, job.args, job.pending))
            super().submit_job(job, run_times)

    with background(executors={"default": Curious()}) as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler)
        job = scheduler.add_job(print_report, args=[3], id="report", name="Report")
        expected = job.trigger
        scheduler.start()
        assert watch.events(1)[0].retval == "3 printed"
    stand_in, is_job, text, *rest = submitted[0]
    assert stand_in == job
    assert is_job
    assert text.startswith("Report (trigger: date[")
    assert rest == ["Report", expected, (3,), False]
    assert stand_in.func is not print_report


def test_a_second_call_replaces_the_options_and_counts_nothing_twice(recorded_metrics: RecordedMetrics) -> None:
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(scheduler, names={"print_report": "first_task"}, exclude="failing")
        track_jobs(scheduler, names={"print_report": "second_task"})
        add_jobs(scheduler, print_report, failing)
        scheduler.start()
        watch.events(2)
    assert totals(recorded_metrics) == [("failing_task", "error"), ("second_task", "ok")]


def test_a_second_call_leaves_executors_alone() -> None:
    executor = ThreadPoolExecutor(1)
    scheduler = BackgroundScheduler(executors={"default": executor})
    track_jobs(scheduler)
    submit_job = executor.submit_job
    track_jobs(scheduler)
    assert executor.submit_job is submit_job


def test_single_jobs_can_be_named_or_left_out(recorded_metrics: RecordedMetrics) -> None:
    reference = f"{print_report.__module__}:print_report"
    with background() as scheduler:
        watch = Watch(scheduler)
        track_jobs(
            scheduler,
            names={"nightly": "nightly_report_task", reference: "report_task", "failing": "weak_task"},
            exclude={"quiet", "Backup"},
        )
        for job, function in {"nightly": print_report, "other": print_report, "weak": failing}.items():
            scheduler.add_job(function, id=job)
        scheduler.add_job(print_report, id="quiet")
        scheduler.add_job(Backup())
        scheduler.start()
        watch.events(5)
    assert totals(recorded_metrics) == [("nightly_report_task", "ok"), ("report_task", "ok"), ("weak_task", "error")]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"names": ["report_task"]}, TypeError, r"names is \['report_task'\]; accepted: a dictionary"),
        ({"names": {print_report: "report_task"}}, TypeError, "names has the job <function print_report"),
        ({"names": {"print_report": 1}}, TypeError, "an action's name must be a string"),
        ({"names": {"print_report": ""}}, ValueError, "an action's name is empty"),
        ({"exclude": 1}, TypeError, "exclude is 1; accepted: a job"),
        ({"exclude": b"job"}, TypeError, "exclude is b'job'; accepted: a job"),
        ({"exclude": [print_report]}, TypeError, "exclude has <function print_report"),
    ],
)
def test_options_that_are_none(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        track_jobs(BackgroundScheduler(), **options)


def test_inside_a_job_its_tracker_is_current(recorded_metrics: RecordedMetrics) -> None:
    def export() -> None:
        current_action().size(3)

    def import_() -> None:
        current_action().to_fail()

    run_in_background(True, export, import_)
    assert recorded_metrics.events == [
        ActionEvent("export_task", status="ok", size=3),
        ActionEvent("import_task", status="error"),
    ]


def test_a_job_whose_function_cannot_be_looked_at_runs_uncounted(
    recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def __call__(self) -> str:
            return "ran"

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_llm_common"):
                raise RuntimeError("ask somebody else")
            raise AttributeError(name)

    odd = Odd()
    events = run_in_background(True, odd, odd, print_report)
    assert [event[2] for event in events] == ["ran", "ran", "1 printed"]
    assert totals(recorded_metrics) == [("print_report_task", "ok")]
    warnings = [record for record in caplog.records if record.name == "llm_common"]
    assert [record.getMessage() for record in warnings] == ["the job job 0 can't be tracked; it runs, uncounted"]


def test_a_scheduler_is_not_kept_alive() -> None:
    scheduler = BackgroundScheduler(executors=in_order())
    track_jobs(scheduler)
    gone = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert gone() is None


def sqlite_store(path: Path) -> SQLAlchemyJobStore:
    """Return a store that leaves no connection open, in whichever thread it was used."""
    return SQLAlchemyJobStore(f"sqlite:///{path}", engine_options={"poolclass": NullPool})


def stored(store: SQLAlchemyJobStore) -> list[Any]:
    with store.engine.connect() as connection:
        return [pickle.loads(row.job_state) for row in connection.execute(store.jobs_t.select())]


def test_a_persistent_store_holds_what_it_holds_without_tracking(
    tmp_path: Path, recorded_metrics: RecordedMetrics
) -> None:
    states, now = [], soon()
    for tracking in (True, False):
        store = sqlite_store(tmp_path / f"{tracking}.sqlite")
        with background(jobstores={"default": store}) as scheduler:
            watch = Watch(scheduler)
            if tracking:
                track_jobs(scheduler)
            every_hour: dict[str, Any] = {
                "trigger": "interval",
                "hours": 1,
                "start_date": datetime(2020, 1, 1, tzinfo=UTC),
            }
            job = scheduler.add_job(print_report, id="report", next_run_time=now, misfire_grace_time=None, **every_hour)
            scheduler.start()
            assert watch.events(1)[0].retval == "1 printed"
            assert scheduler.get_job("report").func is job.func is print_report
            states += [{**state, "trigger": str(state["trigger"])} for state in stored(store)]
    assert states[0] == states[1]
    assert states[0]["func"].endswith(":print_report")

    again = sqlite_store(tmp_path / "True.sqlite")
    with background(jobstores={"default": again}) as scheduler:  # as after a restart
        watch = Watch(scheduler)
        track_jobs(scheduler)
        scheduler.start()
        scheduler.modify_job("report", next_run_time=datetime.now(UTC))
        watch.events(1)
    recorded_metrics.assert_action("print_report_task", status="ok", times=2)


FUNCTIONS = """
def report(copies):
    return f"{copies} printed"

def failing():
    raise ValueError("no paper")

class Shop:
    def restock(self):
        return "restocked"
"""

PROCESSES = """
import logging, sys
from datetime import datetime, timedelta, timezone
from queue import Queue
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.schedulers.background import BackgroundScheduler
from jobs import Shop, failing, report
from llm_common.integrations.apscheduler import track_jobs

class Logged(logging.Handler):
    def emit(self, record):
        arrived.put(("logged", str(record.exc_info[1]).partition("<")[0]))

def main():
    pool = {"type": "processpool", "max_workers": 1}
    scheduler = BackgroundScheduler(timezone=timezone.utc, executors={"default": pool})
    if sys.argv[1] == "tracked":
        track_jobs(scheduler)
    scheduler.add_listener(
        lambda event: arrived.put((event.job_id, event.retval, repr(event.exception))),
        EVENT_JOB_EXECUTED | EVENT_JOB_ERROR,
    )
    logging.getLogger("apscheduler.executors.default").addHandler(Logged(logging.ERROR))
    due = datetime.now(timezone.utc) - timedelta(seconds=30)
    for number, (function, *arguments) in enumerate([(report, 2), (failing,), (Shop().restock,), (lambda: None,)]):
        scheduler.add_job(
            function, "date", run_date=due + timedelta(seconds=number), args=arguments, id=str(number),
            misfire_grace_time=None,
        )
    scheduler.start()
    print(*sorted(str(arrived.get(timeout=60)) for _ in range(4)), sep="\\n")
    scheduler.shutdown()

if __name__ == "__main__":
    arrived = Queue()
    main()
"""


def test_a_pool_of_processes_runs_the_same_and_each_process_counts(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(FUNCTIONS)
    (tmp_path / "main.py").write_text(PROCESSES)
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "LLM_COMMON_APP": "shop_jobs"}
    results = [
        subprocess.run(
            [sys.executable, "main.py", how],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        for how in ("untracked", "tracked")
    ]
    assert results[0].stdout == results[1].stdout
    assert results[0].stdout.splitlines() == [
        "('0', '2 printed', 'None')",
        "('1', None, \"ValueError('no paper')\")",
        "('2', 'restocked', 'None')",
        "('logged', 'This Job cannot be serialized since the reference to its callable (')",  # the lambda
    ]
    assert action_totals(metrics, "shop_jobs") == {
        ("failing_task", "error"): 1,
        ("report_task", "ok"): 1,
        ("restock_task", "ok"): 1,
    }
