"""What the runs of scheduled jobs are called: as the application says of single ones, else after their functions.

Imports no framework.
"""

from collections.abc import Iterable, Mapping

from llm_common.action_names import TASK, end_of, with_suffix
from llm_common.dispatch import check_name


class JobNames:
    """Names given to single jobs, and the jobs that aren't counted.

    Raises :class:`TypeError` or :class:`ValueError` where ``names`` isn't a mapping of strings to names of actions, or
    ``exclude`` neither a string nor several.
    """

    __slots__ = ("_exclude", "_names")

    def __init__(self, names: Mapping[str, str] | None = None, exclude: str | Iterable[str] = ()) -> None:
        self._names = checked_names({} if names is None else names)
        self._exclude = checked_exclude(exclude)

    def name(self, default: str, *keys: str) -> str | None:
        """Return the name of the action for a job that is known by ``keys``, the most telling first, or ``None``.

        ``default`` is what its function is called, or a dotted name. ``None`` stands for a job that isn't counted.
        """
        if not self._exclude.isdisjoint(keys):
            return None
        return self.given(*keys) or with_suffix(end_of(default), TASK)

    def given(self, *keys: str) -> str | None:
        """Return the name that the application gave to a job which is known by ``keys``, if it did."""
        return next((self._names[key] for key in keys if key in self._names), None)


def checked_names(names: object) -> dict[str, str]:
    """Return ``names`` as a dictionary; raise where it can't be one of jobs and names of actions."""
    if not isinstance(names, Mapping):
        raise TypeError(f"names is {names!r:.100}; accepted: a dictionary such as {{'send_report': 'report_task'}}")
    for key, name in names.items():
        if not isinstance(key, str):
            raise TypeError(
                f"names has the job {key!r:.100}; accepted: strings, as in {{'send_report': 'report_task'}}"
            )
        check_name(name)
    return dict(names)


def checked_exclude(exclude: object) -> frozenset[str]:
    """Return ``exclude`` as a set; raise :class:`TypeError` where it is neither a string nor several."""
    jobs = (exclude,) if isinstance(exclude, str) else exclude
    if isinstance(jobs, bytes) or not isinstance(jobs, Iterable):
        raise TypeError(f"exclude is {exclude!r:.100}; accepted: a job such as 'send_report', or several")
    found = list(jobs)
    for job in found:
        if not isinstance(job, str):
            raise TypeError(f"exclude has {job!r:.100}; accepted: strings, such as 'send_report'")
    return frozenset(found)
