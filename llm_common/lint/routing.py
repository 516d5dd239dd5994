"""Which handlers a middleware of aiogram is in front of: those of its observer, in its router and those nested in it.

Where that can't be told, as of a router that is a parameter, it is taken to be in front of them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

TESTS = re.compile(r"(?:^|/)(?:tests?/|test_[^/]*$|conftest\.py$|[^/]*_test\.py$)")
"""The paths of files of tests, which don't track what the application runs."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router, by its file, the function or class that it is made in, and its name."""

    key: tuple[str, str, str] | None
    """``None`` where it can't be told which it is."""
    dispatcher: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """An observer of a router; one without a name stands for all of them."""

    router: Router
    observer: str = ""


ANYWHERE = Route(Router(None))


@dataclass(frozen=True, slots=True)
class Covered:
    """What is tracked by one line: a route of a framework, by the file of this path, as reports have it."""

    framework: str
    path: str
    route: Route = ANYWHERE


Around = dict[Router, set[Router]]
"""For each router those that include it; those that include what can't be told are around an unknown one."""


class Routing:
    """Tells which handlers are covered."""

    def __init__(self, covered: Iterable[Covered], included: Iterable[tuple[str, Router, Router]]) -> None:
        self._covered = list(covered)
        self._around: tuple[Around, Around] = (defaultdict(set), defaultdict(set))
        """For what the application registers, and for what tests do."""
        for path, outer, inner in included:
            for around in self._around[bool(TESTS.search(path)) :]:
                around[inner if inner.key else ANYWHERE.router].add(outer)

    def covers(self, framework: str, path: str, route: Route) -> bool:
        """Return whether a handler is covered that the file at ``path`` registers."""
        tests = bool(TESTS.search(path))
        return any(
            one.framework == framework
            and (tests or not TESTS.search(one.path))
            and one.route.observer in ("", route.observer)
            and reaches(one.route.router, route.router, self._around[tests])
            for one in self._covered
        )


def reaches(outer: Router, inner: Router, around: Around) -> bool:
    """Return whether updates for ``inner`` may come through ``outer``."""
    if outer.key is None or inner.key is None or outer in lineage(inner, around):
        return True
    if inner.dispatcher:
        return False
    if outer in lineage(ANYWHERE.router, around):  # it includes what can't be told
        return True
    return outer.dispatcher and not any(one.dispatcher for one in lineage(inner, around))


def lineage(router: Router, around: Around) -> set[Router]:
    """Return a router and those that it is nested in."""
    found: set[Router] = set()
    waiting = [router]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += around[one]
    return found
