"""Counts what the workers of Celery 5 run: ``track_tasks()`` connects its signals, and no more.

A run begins with the signal before it and ends with the one after it, in whatever process or thread the task runs. A
process that is killed sends none; the worker does, on its behalf.
"""

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sys import exception as handled_exception
from time import perf_counter, time
from typing import Any
from weakref import WeakValueDictionary

from billiard import common as billiard
from celery import signals, states
from celery.exceptions import TimeLimitExceeded, WorkerLostError

from llm_common.decorator import tracked_name
from llm_common.integrations.job_names import JobNames
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking

OWN = "celery."
"""How the names of Celery's own tasks begin."""

HARMLESS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGUSR1") if hasattr(signal, name))
"""Signals that a process of a pool survives, and so its run ends by itself: one is ignored, one raises an exception."""


def track_tasks(*, names: Mapping[str, str] | None = None, exclude: str | Iterable[str] = ()) -> None:
    """Count each run of a task as one action, named after the end of the task's name: ``…_task``.

    Call it where the application is made, so that each worker does. Tasks whose function is decorated already are left
    alone, and so are Celery's own unless ``names`` names them. In ``names``, which has names of actions for single
    tasks, and in ``exclude``, the tasks that aren't counted, a task is meant by its whole name (``"shop.tasks.send"``).
    A second call replaces both.

    Raises :class:`TypeError` or :class:`ValueError` where ``names`` or ``exclude`` has what is no name.
    """
    _runs.names = JobNames(names, exclude)
    for one, receiver in (
        (signals.task_prerun, _runs.begun),
        (signals.task_postrun, _runs.ended),
        (signals.task_received, _runs.received),
        (signals.task_failure, _runs.failed),
        (signals.task_revoked, _runs.revoked),
        (signals.task_retry, _runs.retried),
    ):
        # Celery would keep a weak reference only, and knows by the identifier that it is connected already.
        one.connect(receiver, weak=False, dispatch_uid="llm_common")


@dataclass(slots=True)
class Run:
    """A run under way in this process."""

    tracker: ActionTracker
    handled: BaseException | None
    """What was being handled when it began, as where a task is called eagerly in an ``except`` clause."""


class TaskRuns:
    """The runs that this process knows of, and what to do about each signal."""

    def __init__(self) -> None:
        self.names = JobNames()
        self._running: dict[int, Run] = {}
        self._received: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()
        """Requests that a worker received and that didn't begin in its own process, by that process and their id."""

    def begun(self, sender: Any, task_id: str, **_: object) -> None:
        """Begin the action of a run."""
        self._received.pop((os.getpid(), task_id), None)
        name = self._name(sender)
        if name is not None:
            tracker = action_tracking(name)
            self._running[id(sender.request)] = Run(tracker, handled_exception())
            tracker.__enter__()

    def ended(self, sender: Any, retval: object, state: str | None, **_: object) -> None:
        """End it by the exception that the task was left by, if that is a failure."""
        run = self._running.pop(id(sender.request), None)
        if run is None:
            return
        exception = handled_exception()
        if state in {states.FAILURE, states.RETRY} and isinstance(retval, BaseException):
            exception = retval
        elif state is not None and exception is run.handled:
            exception = None  # else Celery itself failed, after the task had returned
        # A process of a pool that was told to end unwinds: the worker counts the run, since it knows why.
        if exception is None or not billiard._should_have_exited[0]:  # no public name in all versions
            left_by(run.tracker, exception)

    def received(self, request: Any, **_: object) -> None:
        """Remember a request: only by it can be told how long a run took that didn't live to tell."""
        self._received[os.getpid(), request.id] = request

    def failed(self, sender: Any, task_id: str, exception: BaseException, **_: object) -> None:
        """Count a run whose process was killed at a time limit, or died."""
        if isinstance(exception, TimeLimitExceeded | WorkerLostError):
            self._lost(sender, task_id, exception)

    def revoked(self, sender: Any, request: Any, terminated: bool, signum: object, **_: object) -> None:
        """Count a run whose process was killed because the task was revoked."""
        if terminated and signum not in HARMLESS:
            self._lost(sender, request.id, SystemExit("revoked"))

    def retried(self, sender: Any, request: Any, einfo: object, **_: object) -> None:
        """Count a run whose process was killed by the worker, which will run the task again."""
        if einfo is None:  # a task that asks for it has a traceback
            self._lost(sender, request.id, SystemExit("cancelled"))

    def _lost(self, task: Any, task_id: str, exception: BaseException) -> None:
        request = self._received.pop((os.getpid(), task_id), None)
        name = self._name(task)
        if request is None or request.time_start is None or name is None:
            return
        tracker = action_tracking(name).__enter__()
        tracker._started = perf_counter() - max(0.0, time() - request.time_start)
        left_by(tracker, exception)

    def _name(self, task: Any) -> str | None:
        if any(tracked_name(function) is not None for function in (task.run, type(task).__call__)):
            return None
        if task.name.startswith(OWN) and self.names.given(task.name) is None:
            return None
        return self.names.name(task.name, task.name)


def left_by(tracker: ActionTracker, exception: BaseException | None) -> None:
    """End the block of ``tracker``, which was left by ``exception`` or normally."""
    tracker.__exit__(type(exception) if exception else None, exception, None)


_runs = TaskRuns()
