"""Counts the runs of the jobs of an APScheduler, version 3: ``track_jobs(scheduler)`` and no more.

A job is handed to an executor as a stand-in whose function is tracked. The job itself stays as it is, since persistent
job stores write down where its function is found.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from apscheduler.events import EVENT_EXECUTOR_ADDED
from apscheduler.job import Job
from apscheduler.schedulers.base import BaseScheduler

from llm_common.action_names import name_of
from llm_common.decorator import function_wrapper, tracked, tracked_name
from llm_common.integrations.job_names import JobNames

logger = logging.getLogger("llm_common")


def track_jobs(
    scheduler: BaseScheduler, *, names: Mapping[str, str] | None = None, exclude: str | Iterable[str] = ()
) -> None:
    """Count each run of each job of ``scheduler`` as one action, named after the job's function: ``…_task``.

    Jobs and executors may be added before and after. Functions that are decorated already are left alone. A job is
    meant by its id, by the name of its function or by a reference to that (``"shop.jobs:send_report"``), in ``names``,
    which has names of actions for single jobs, and in ``exclude``, the jobs that aren't counted. A second call for the
    same scheduler replaces both.

    Raises :class:`TypeError` or :class:`ValueError` where ``names`` or ``exclude`` has what is no name.
    """
    job_names = JobNames(names, exclude)
    tracking = _trackings.get(scheduler)
    if tracking is None:
        tracking = _trackings[scheduler] = JobTracking()
        scheduler.add_listener(lambda _: tracking.follow(scheduler), EVENT_EXECUTOR_ADDED)
    tracking.names = job_names
    tracking.follow(scheduler)


class JobTracking:
    """How the jobs of one scheduler are tracked."""

    __slots__ = ("__weakref__", "_executors", "_faulty", "names")

    def __init__(self) -> None:
        self.names = JobNames()
        self._executors: WeakSet[Any] = WeakSet()
        self._faulty = False

    def follow(self, scheduler: BaseScheduler) -> None:
        """See to it that each executor is handed jobs that are tracked."""
        # Executors can be had nowhere else: the event of one that is added tells its alias, and earlier ones have none.
        for executor in list(scheduler._executors.values()):
            if executor not in self._executors:
                self._executors.add(executor)
                executor.submit_job = self._submitting(executor.submit_job)

    def _submitting(self, submit_job: Callable[[Job, list[datetime]], None]) -> Callable[[Job, list[datetime]], None]:
        @wraps(submit_job)
        def submit_tracked(job: Job, run_times: list[datetime]) -> None:
            submit_job(self._stand_in(job), run_times)

        return submit_tracked

    def _stand_in(self, job: Job) -> Job:
        """Return what runs in place of ``job``; ``job`` itself where it isn't counted, or can't be."""
        try:
            name = self._name(job)
            return job if name is None else JobStandIn(job, name)
        except Exception as fault:
            level = logging.DEBUG if self._faulty else logging.WARNING
            self._faulty = True
            logger.log(level, "the job %s can't be tracked; it runs, uncounted", job.id, exc_info=fault)
            return job

    def _name(self, job: Job) -> str | None:
        if tracked_name(job.func) is not None:
            return None
        function = name_of(job.func)
        return self.names.name(function, job.id, function, job.func_ref or "")


_trackings: WeakKeyDictionary[BaseScheduler, JobTracking] = WeakKeyDictionary()


class JobStandIn(Job):  # type: ignore[misc]
    """Stands for a job while it runs: its function is tracked, everything else is the job's own."""

    __slots__ = ("_llm_common_job", "_llm_common_name", "func")

    def __init__(self, job: Job, name: str) -> None:
        self._llm_common_job = job
        self._llm_common_name = name
        self.func = function_that_tracks(name, job.func)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm_common_job, name)  # all but the function: no other slot is filled

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # In a pool of processes it is the job that travels, as it does untracked, to be tracked there.
        return type(self), (self._llm_common_job, self._llm_common_name)


def function_that_tracks(name: str, function: Any) -> Any:
    """Return what tracks ``function``, which may also be a class: then it is the call that constructs."""
    return function_wrapper(name, function) if isinstance(function, type) else tracked(name, function)
