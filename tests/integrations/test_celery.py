"""Celery: real workers, with and without tracking."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from billiard import common as billiard
from celery import Celery, Task, signals
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject, TaskRevokedError, WorkerLostError
from celery.result import AsyncResult, allow_join_result

import folder_broker
from llm_common import action_tracking_decorator, configure, current_action
from llm_common.integrations.celery import TaskRuns, track_tasks
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from recording import FaultyBackend
from scraping import action_seconds, action_totals

PATIENCE = 60
CONNECTED = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_received,
    signals.task_failure,
    signals.task_revoked,
    signals.task_retry,
)


@pytest.fixture(autouse=True)
def clean_celery() -> Iterator[None]:
    """Leave no receiver of signals behind, and logging as it is."""

    def setting_up(**_: object) -> None:
        """Do nothing, so that nothing is set up."""

    def disconnect() -> None:
        for one in CONNECTED:
            one.disconnect(dispatch_uid="llm_common")

    disconnect()
    signals.setup_logging.connect(setting_up)
    yield
    disconnect()
    signals.setup_logging.disconnect(setting_up)


class OutOfPaperError(Exception):
    """What tasks raise here."""


class Printing(Task):  # type: ignore[misc]
    name = "shop.tasks.print_labels"

    def run(self, copies: int) -> str:
        return f"{copies} printed"


class CalledTask(Task):  # type: ignore[misc]
    @action_tracking_decorator("called_task")
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class BoastingTask(Task):  # type: ignore[misc]
    def on_success(self, *args: Any) -> None:
        raise OutOfPaperError("too early")


class Shop(Celery):  # type: ignore[misc]
    """An application with tasks that end in every way."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.conf.update(
            task_default_queue=uuid4().hex,  # brokers in memory are one for the process
            worker_redirect_stdouts=False,
            broker_transport_options={"polling_interval": 0.01},
            **settings,
        )
        self.register_task(Printing())

        def task(function: Any, **options: Any) -> Any:
            return self.task(name=f"shop.tasks.{function.__name__}", **options)(function)

        def pack(parcels: int) -> int:
            current_action().size(parcels)
            return parcels

        def fail() -> None:
            raise OutOfPaperError("no paper")

        def flaky(self: Task) -> int:
            if self.request.retries < 2:
                raise self.retry(exc=OutOfPaperError("no paper yet"), countdown=0)
            return int(self.request.retries)

        def stubborn() -> None:
            raise OutOfPaperError("never any paper")

        def ignored() -> None:
            raise Ignore

        def rejected() -> None:
            raise Reject("not for us", requeue=False)

        def returned() -> Exception:
            return OutOfPaperError("as a result")

        def judged() -> None:
            current_action().to_fail()

        def leave() -> None:
            raise SystemExit(3)

        @action_tracking_decorator("by_hand_task")
        def by_hand() -> None: ...

        def called() -> None: ...

        def boasting() -> None: ...

        def nested() -> int:
            try:
                raise OutOfPaperError("handled")
            except OutOfPaperError:
                with allow_join_result():
                    return int(self.pack.apply([2]).get())

        self.pack = task(pack)
        self.fail = task(fail)
        self.flaky = task(flaky, bind=True)
        self.stubborn = task(stubborn, autoretry_for=(OutOfPaperError,), max_retries=1, default_retry_delay=0)
        self.ignored = task(ignored)
        self.rejected = task(rejected)
        self.returned = task(returned, serializer="pickle")
        self.judged = task(judged)
        self.leave = task(leave)
        self.by_hand = task(by_hand)
        self.called = task(called, base=CalledTask)
        self.boasting = task(boasting, base=BoastingTask)
        self.nested = task(nested)
        self.print_labels = self.tasks["shop.tasks.print_labels"]


@contextmanager
def working(app: Celery, pool: str = "solo") -> Iterator[None]:
    """Run a worker; at the end of the block all that it counts is counted."""
    with start_worker(app, pool=pool, perform_ping_check=False, shutdown_timeout=PATIENCE):
        yield
        app.control.shutdown()  # at once, where otherwise it would be noticed in seconds


def outcome(result: AsyncResult) -> tuple[str, str, str | None]:
    """Return what an application can see of a run that has ended."""
    returned = result.get(timeout=PATIENCE, propagate=False, interval=0.01)
    return result.state, repr(returned), result.traceback


def totals(recorded: RecordedMetrics) -> list[tuple[str, str]]:
    return sorted((event.name, event.status) for event in recorded.events)


def run_everything(app: Shop, pool: str, tracking: bool) -> list[tuple[str, str, str | None]]:
    if tracking:
        track_tasks()
    with working(app, pool):
        sent = [app.pack.delay(3), app.fail.delay(), app.by_hand.delay(), app.called.delay(), app.print_labels.delay(2)]
        sent += [app.judged.delay(), app.nested.delay()]
        app.ignored.delay()
        app.rejected.delay()
        if pool == "solo":  # in threads a worker takes seconds to see that it sent itself a message
            sent += [app.flaky.delay(), app.stubborn.delay()]
        return [outcome(result) for result in sent]


def logged_by_celery(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what Celery says about receivers of signals that failed."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("celery.utils.dispatch")]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_each_run_counts_once_and_nothing_else_changes(
    pool: str, recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    with record_metrics() as without_tracking:
        without = run_everything(Shop(), pool, tracking=False)
    assert totals(without_tracking) == [("by_hand_task", "ok"), ("called_task", "ok")]
    assert run_everything(Shop(), pool, tracking=True) == without
    states = ["SUCCESS", "FAILURE", *5 * ["SUCCESS"]]
    assert [state for state, _, _ in without] == [*states, *(["SUCCESS", "FAILURE"] if pool == "solo" else [])]
    assert [returned for _, returned, _ in without[:2]] == ["3", "OutOfPaperError('no paper')"]
    retried = [*2 * [("flaky_task", "error")], ("flaky_task", "ok"), *2 * [("stubborn_task", "error")]]
    assert totals(recorded_metrics) == sorted(
        [
            ("by_hand_task", "ok"),
            ("called_task", "ok"),
            ("fail_task", "error"),
            ("ignored_task", "ok"),
            ("judged_task", "error"),
            ("nested_task", "ok"),
            *2 * [("pack_task", "ok")],
            ("print_labels_task", "ok"),
            ("rejected_task", "ok"),
            *(retried if pool == "solo" else []),
        ]
    )
    assert ActionEvent("pack_task", status="ok", size=3) in recorded_metrics.events
    assert logged_by_celery(caplog) == []


@pytest.mark.parametrize("tracking", [True, False])
def test_what_is_never_run_does_not_count(tracking: bool, recorded_metrics: RecordedMetrics) -> None:
    app = Shop()
    if tracking:
        track_tasks()
    with working(app):
        expired = app.pack.apply_async([1], expires=datetime.now(UTC) - timedelta(hours=1))
        app.send_task("shop.tasks.somebodys_secret")
        assert outcome(app.pack.delay(2))[1] == "2"
        with pytest.raises(TaskRevokedError):
            expired.get(timeout=PATIENCE)
    assert totals(recorded_metrics) == ([("pack_task", "ok")] if tracking else [])


def test_a_task_that_is_called_as_a_function_does_not_count(recorded_metrics: RecordedMetrics) -> None:
    track_tasks()
    assert Shop().pack(2) == 2
    assert totals(recorded_metrics) == []


def eagerly(tracking: bool, propagate: bool, task: str) -> Any:
    """Run a task in the process that calls it; return its state and result, or what it raised."""
    app = Shop(task_always_eager=True, task_eager_propagates=propagate)
    if tracking:
        track_tasks()
    try:
        result = getattr(app, task).delay()
    except BaseException as raised:
        return type(raised), str(raised)
    return result.state, repr(result.result)


@pytest.mark.parametrize(
    ("propagate", "task", "expected"),
    [
        (False, "fail", [("fail_task", "error")]),
        (True, "fail", [("fail_task", "error")]),
        (False, "flaky", [*2 * [("flaky_task", "error")], ("flaky_task", "ok")]),
        (False, "stubborn", 2 * [("stubborn_task", "error")]),
        (True, "stubborn", [("stubborn_task", "error")]),
        (False, "ignored", [("ignored_task", "ok")]),
        (False, "rejected", [("rejected_task", "ok")]),
        (False, "returned", [("returned_task", "ok")]),
        (False, "leave", [("leave_task", "cancelled")]),
        (True, "leave", [("leave_task", "cancelled")]),
        (False, "nested", [("nested_task", "ok"), ("pack_task", "ok")]),
    ],
)
def test_eager_runs(propagate: bool, task: str, expected: Any, recorded_metrics: RecordedMetrics) -> None:
    with record_metrics() as without_tracking:
        without = eagerly(False, propagate, task)
    assert totals(without_tracking) == []
    assert eagerly(True, propagate, task) == without
    assert totals(recorded_metrics) == expected


def test_a_run_after_which_celery_fails_is_an_error_as_it_is_for_celery(recorded_metrics: RecordedMetrics) -> None:
    app = Shop()
    for tracking in (False, True):
        if tracking:
            track_tasks()
        with pytest.raises(OutOfPaperError, match="too early"):
            app.boasting.apply()
    assert totals(recorded_metrics) == [("boasting_task", "error")]


def test_the_exception_in_flight_around_an_eager_run_is_not_its_own(recorded_metrics: RecordedMetrics) -> None:
    app = Shop()
    track_tasks()
    try:
        raise OutOfPaperError("handled")
    except OutOfPaperError:
        app.ignored.apply()
        app.fail.apply()
    assert totals(recorded_metrics) == [("fail_task", "error"), ("ignored_task", "ok")]


def test_a_run_that_unwinds_because_its_process_was_told_to_end_is_left_to_the_worker(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Shop()
    track_tasks()
    monkeypatch.setattr(billiard, "_should_have_exited", [True])
    with pytest.raises(SystemExit):
        copy_context().run(app.leave.apply)  # it stays under way, in a process that would end now
    app.pack.apply([1])  # one that finishes nevertheless
    assert totals(recorded_metrics) == [("pack_task", "ok")]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("shop.tasks.send", "send_task"),
        ("shop.user.42", "user_42_task"),
        ("shop.2fa", "shop_2fa_task"),
        ("send", "send_task"),
    ],
)
def test_an_action_is_named_after_the_end_of_the_task_s_name(
    task: str, name: str, recorded_metrics: RecordedMetrics
) -> None:
    app = Shop()
    track_tasks()

    @app.task(name=task, shared=False)  # type: ignore[untyped-decorator]
    def work() -> None:
        pass

    work.apply()
    assert totals(recorded_metrics) == [(name, "ok")]


def test_a_second_call_replaces_the_options_and_counts_nothing_twice(recorded_metrics: RecordedMetrics) -> None:
    app = Shop()
    track_tasks(names={"shop.tasks.pack": "first_task"}, exclude="shop.tasks.fail")
    track_tasks(names={"shop.tasks.pack": "second_task"}, exclude=["shop.tasks.judged"])
    app.pack.apply([1])
    app.fail.apply()
    app.judged.apply()
    assert totals(recorded_metrics) == [("fail_task", "error"), ("second_task", "ok")]


def test_tasks_of_celery_itself_count_where_they_are_named(recorded_metrics: RecordedMetrics) -> None:
    app = Shop()
    cleanup = app.tasks["celery.backend_cleanup"]
    track_tasks()
    cleanup.apply()
    track_tasks(names={"celery.backend_cleanup": "cleanup_task"})
    cleanup.apply()
    assert totals(recorded_metrics) == [("cleanup_task", "ok")]


def test_options_that_are_none() -> None:
    with pytest.raises(TypeError, match="accepted: a dictionary"):
        track_tasks(names="report_task")  # type: ignore[arg-type]
    app = Shop()
    with record_metrics() as recorded:
        app.pack.apply([1])
    assert totals(recorded) == []  # nothing was connected


def test_a_backend_that_fails_is_no_news_to_celery(caplog: pytest.LogCaptureFixture) -> None:
    backend = FaultyBackend("bind")
    configure(app="shop", backends=[backend])
    track_tasks()
    assert Shop().pack.apply([2]).get() == 2
    assert backend.calls == []
    assert logged_by_celery(caplog) == []


TASKS = """
import os, signal, sys
from pathlib import Path
from billiard import common as billiard
from celery import Celery
from llm_common import action_tracking_decorator, current_action
from llm_common.integrations.celery import TaskRuns, track_tasks

app = Celery("shop")
app.config_from_object("settings")
if os.environ["TRACKING"] == "on":
    track_tasks()

def told():
    # Tells whoever reads the pipe that the task has begun, then waits to be killed.
    Path("begun").write_text(str(os.getpid()))
    signal.pause()

@app.task(name="shop.tasks.pack")
def pack(parcels):
    current_action().size(parcels)
    return parcels

@app.task(name="shop.tasks.fail")
def fail():
    raise ValueError("no paper")

@app.task(name="shop.tasks.flaky", bind=True)
def flaky(self):
    if not self.request.retries:
        raise self.retry(countdown=0)

@app.task(name="shop.tasks.endless")
def endless():
    told()

@app.task(name="shop.tasks.stuck", time_limit=1)
def stuck():
    signal.pause()

@app.task(name="shop.tasks.slow", soft_time_limit=1)
def slow():
    signal.pause()

@app.task(name="shop.tasks.crash")
def crash():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="shop.tasks.by_hand")
@action_tracking_decorator("by_hand_task")
def by_hand():
    os.kill(os.getpid(), signal.SIGKILL)

@app.task(name="shop.tasks.patient")
def patient():
    told()

@app.task(name="shop.tasks.leave")
def leave():
    sys.exit(3)
"""

SETTINGS = """
import folder_broker
broker_url = "folder://localhost"
broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.01
}
result_backend = "file://" + __import__("os").path.abspath("results")
worker_lost_wait = 0.1
"""


class Prefork:
    """A worker with a pool of processes, and a client of it, which meet in a folder."""

    def __init__(self, folder: Path, tracking: bool) -> None:
        self.folder = folder
        self.metrics = folder / "metrics"
        for name in ("queue", "control", "results", "metrics"):
            (folder / name).mkdir(parents=True)
        (folder / "tasks.py").write_text(TASKS)
        (folder / "settings.py").write_text(SETTINGS)
        os.mkfifo(folder / "begun")
        self.pipe = os.open(folder / "begun", os.O_RDWR)  # a mere reader would wait for somebody who writes
        environ = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            "LLM_COMMON_APP": "shop",
            "PYTHONPATH": str(Path(folder_broker.__file__).parent),
            "TRACKING": "on" if tracking else "off",
        }
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=2"]
        self.log = (folder / "log").open("w")
        self.worker = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"],
            cwd=folder,
            env=environ,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.client = Celery("client", set_as_current=False)
        exec((folder / "settings.py").read_text(), settings := dict[str, Any]())
        settings = {
            name: value for name, value in settings.items() if name.startswith(("broker_", "result_", "worker_"))
        }
        settings["result_backend"] = f"file://{folder / 'results'}"
        self.client.conf.update(settings)

    def send(self, task: str, *arguments: object) -> AsyncResult:
        return self.client.send_task(f"shop.tasks.{task}", arguments)

    def begun(self) -> None:
        """Return once a task that tells it has begun."""
        assert select.select([self.pipe], [], [], PATIENCE)[0], "no task has begun"
        os.read(self.pipe, 100)

    def accepted(self, task: str, *arguments: object) -> None:
        """Return once the worker's first process knows too what has begun: it has taken the result of ``task`` since.

        Its other processes say that they accept a task before they run it; the first one hears of it in its own time.
        """
        self.send(task, *arguments).get(timeout=PATIENCE)

    def stop(self, by: int = signal.SIGTERM) -> None:
        self.worker.send_signal(by)
        with suppress(subprocess.TimeoutExpired):  # a pool whose processes were killed may wait for them forever
            self.worker.wait(15)

    def totals(self) -> dict[tuple[str, str], float]:
        return action_totals(self.metrics, "shop")


@contextmanager
def preforking(folder: Path, tracking: bool) -> Iterator[Prefork]:
    """Run such a worker; at the end of the block all that it counts is counted."""
    prefork = Prefork(folder, tracking)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)  # where the client finds the folders too
            yield prefork
        prefork.stop()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(prefork.worker.pid, signal.SIGKILL)
        prefork.worker.wait()
        prefork.log.close()
        os.close(prefork.pipe)
        print((folder / "log").read_text())


def run_in_processes(prefork: Prefork) -> list[tuple[str, str]]:
    """Run tasks that end in many ways, and return their outcomes."""
    names = "fail", "flaky", "slow", "stuck", "crash", "by_hand"
    sent = [prefork.send("pack", 3), prefork.send("pack", 4), *map(prefork.send, names)]
    return list(map(kind, sent))


def revoke_in_processes(prefork: Prefork) -> list[tuple[str, str]]:
    """Revoke tasks that run, by a signal that ends the process and by one that raises an exception in the task."""
    revoked = []
    for task, by in ("endless", "SIGTERM"), ("patient", "SIGUSR1"):
        result = prefork.send(task)
        prefork.begun()
        prefork.client.control.revoke(result.id, terminate=True, signal=by)
        revoked.append(kind(result))
    return revoked[:1]  # of the second, worker and process each write down what they think


def leave_in_processes(prefork: Prefork) -> list[tuple[str, str]]:
    """Run a task that makes its process exit, whose outcome Celery finds no way to write down."""
    prefork.send("leave")
    return [kind(prefork.send("pack", 1))]


def kind(result: AsyncResult) -> tuple[str, str]:
    """Return the state of a run, and its result or the type of its exception; messages of lost processes vary."""
    state, returned, _ = outcome(result)
    return state, returned.partition("(")[0]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("scenario", "outcomes", "totals"),
    [
        pytest.param(
            run_in_processes,
            [
                ("SUCCESS", "3"),
                ("SUCCESS", "4"),
                ("FAILURE", "ValueError"),
                ("SUCCESS", "None"),
                ("FAILURE", "SoftTimeLimitExceeded"),
                ("FAILURE", "TimeLimitExceeded"),
                *2 * [("FAILURE", "WorkerLostError")],
            ],
            {
                ("pack_task", "ok"): 2,
                ("fail_task", "error"): 1,
                ("flaky_task", "error"): 1,
                ("flaky_task", "ok"): 1,
                ("slow_task", "error"): 1,
                ("stuck_task", "error"): 1,
                ("crash_task", "error"): 1,
            },
            id="run",
        ),
        pytest.param(
            revoke_in_processes,
            [("REVOKED", "TaskRevokedError")],
            {("endless_task", "cancelled"): 1, ("patient_task", "error"): 1},
            id="revoke",
        ),
        pytest.param(
            leave_in_processes, [("SUCCESS", "1")], {("leave_task", "cancelled"): 1, ("pack_task", "ok"): 1}, id="leave"
        ),
    ],
)
@pytest.mark.parametrize("tracking", [True, False])
def test_a_pool_of_processes(
    scenario: Callable[[Prefork], list[tuple[str, str]]],
    outcomes: list[tuple[str, str]],
    totals: dict[tuple[str, str], float],
    tracking: bool,
    tmp_path: Path,
) -> None:
    with preforking(tmp_path, tracking) as prefork:
        assert scenario(prefork) == outcomes
    assert prefork.totals() == (totals if tracking else {})
    if ("stuck_task", "error") in totals and tracking:
        assert action_seconds(prefork.metrics)["stuck_task"] >= 1  # its time limit


@pytest.mark.e2e
@pytest.mark.parametrize("tracking", [True, False])
def test_a_worker_that_is_told_to_stop_at_once_breaks_runs_off(tracking: bool, tmp_path: Path) -> None:
    with preforking(tmp_path, tracking) as prefork:
        result = prefork.send("endless")
        prefork.begun()
        prefork.accepted("pack", 1)
        prefork.stop(signal.SIGQUIT)
        assert result.state == "RETRY"
    assert prefork.totals() == ({("endless_task", "cancelled"): 1, ("pack_task", "ok"): 1} if tracking else {})


def test_a_lost_run_of_which_this_worker_heard_nothing_is_not_counted(recorded_metrics: RecordedMetrics) -> None:
    @Celery("shop", set_as_current=False).task(name="shop.tasks.reindex")  # type: ignore[untyped-decorator]
    def task() -> None:
        """Do nothing."""

    TaskRuns().failed(task, "an id that was never received", WorkerLostError())
    assert recorded_metrics.events == []
