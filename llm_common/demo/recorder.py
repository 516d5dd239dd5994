"""The demo's own backend: it keeps the figures that the screen shows, whatever other backends there are.

It also shows all that it takes to write one: an object with two hooks, which return a recorder for each action and for
each HTTP series.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from time import monotonic

from llm_common import hookimpl
from llm_common.contract import HttpSeries, Status
from llm_common.http_labels import SERVER

LATEST = 5_000
"""Over how many of the latest durations of an action, or of an HTTP series, the quantiles are taken."""


class Timed:
    """What figures of every kind have: how often something ended, when, and how long it took."""

    def __init__(self) -> None:
        self.per_second: Counter[int] = Counter()
        """How many ended in each second since the start."""
        self.durations: deque[float] = deque(maxlen=LATEST)
        """The latest durations, in seconds."""

    @property
    def total(self) -> int:
        """How many ended, in whatever way."""
        return self.per_second.total()

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that ``share`` (above 0, at most 1) of the latest did not exceed.

        Not a number where nothing has ended yet.
        """
        ordered = sorted(self.durations)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


class ActionFigures(Timed):
    """The recorder of one action, and what it has seen once :meth:`update` was called.

    Recorders are called from any thread, and from a signal handler in the midst of another call. Hence the methods that
    record do nothing but append, which can't be interrupted; the one reader does the rest.
    """

    def __init__(self, name: str, started: float) -> None:
        super().__init__()
        self.name = name
        self.counts: Counter[Status] = Counter()
        self.size: float | None = None
        """The sum of the sizes; ``None`` where there were none."""
        self._ended: deque[tuple[Status, float, int]] = deque()
        self._sizes: deque[float] = deque()
        self._started = started

    def finished(self, status: Status, seconds: float) -> None:
        """Note that the action ended."""
        self._ended.append((status, seconds, int(monotonic() - self._started)))

    def sized(self, amount: float) -> None:
        """Note a size."""
        self._sizes.append(amount)

    def update(self) -> None:
        """Work what came since the last call into the figures. Called by the one reader alone."""
        while self._ended:
            status, seconds, second = self._ended.popleft()
            self.counts[status] += 1
            self.per_second[second] += 1
            self.durations.append(seconds)
        while self._sizes:
            self.size = (self.size or 0.0) + self._sizes.popleft()

    @property
    def error_share(self) -> float:
        """Which share of all that ended were errors, from 0 to 1."""
        return self.counts[Status.ERROR] / self.total if self.total else 0.0


class HttpFigures(Timed):
    """The recorder of one HTTP series, and what it has seen once :meth:`update` was called."""

    def __init__(self, series: HttpSeries, started: float) -> None:
        super().__init__()
        self.series = series
        self.request_bytes = 0
        """The sum over the bodies of all requests."""
        self.response_bytes = 0
        self._ended: deque[tuple[float, int, int, int]] = deque()
        self._started = started

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Note that an exchange ended."""
        self._ended.append((seconds, request_bytes, response_bytes, int(monotonic() - self._started)))

    def update(self) -> None:
        """Work what came since the last call into the figures. Called by the one reader alone."""
        while self._ended:
            seconds, request_bytes, response_bytes, second = self._ended.popleft()
            self.request_bytes += request_bytes
            self.response_bytes += response_bytes
            self.per_second[second] += 1
            self.durations.append(seconds)


class RouteFigures(Timed):
    """The figures of all HTTP series that differ in their status alone."""

    def __init__(self, exchanges: Iterable[HttpFigures]) -> None:
        """Add up ``exchanges``, of which there must be one at least."""
        super().__init__()
        self.durations = deque()  # as many as there are
        self.counts: Counter[str] = Counter()
        """By the first digit of the status: ``"2"`` to ``"5"``; ``""`` where there was no response."""
        for one in exchanges:
            self.app_type, self.method, self.resource = one.series.app_type, one.series.method, one.series.resource
            first = one.series.status[:1]
            self.counts[first if first.isdigit() else ""] += one.total
            self.per_second += one.per_second
            self.durations += one.durations


def by_route(exchanges: Sequence[HttpFigures]) -> list[RouteFigures]:
    """Return the figures of each route, whatever the status, in the order of ``exchanges``, which must be sorted."""
    return [RouteFigures(group) for _, group in groupby(exchanges, lambda one: route(one.series))]


def route(series: HttpSeries) -> tuple[bool, str, str, str]:
    """Return the series without its status, as it is sorted: what is served first, then what is sent."""
    return series.app_type != SERVER, series.app_type, series.resource, series.method


class DemoRecorder:
    """The backend: one :class:`ActionFigures` for each action name, one :class:`HttpFigures` for each HTTP series."""

    name = "demo"

    def __init__(self) -> None:
        self._actions: dict[str, ActionFigures] = {}
        self._exchanges: dict[HttpSeries, HttpFigures] = {}
        self.begin()

    def begin(self) -> None:
        """Set the clock to zero. To be called before the first action."""
        self._started = monotonic()

    @hookimpl
    def llm_common_bind_action(self, name: str) -> ActionFigures:
        """Return the recorder of an action, the same each time."""
        return self._actions.setdefault(name, ActionFigures(name, self._started))

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries) -> HttpFigures:
        """Return the recorder of an HTTP series, the same each time."""
        return self._exchanges.setdefault(series, HttpFigures(series, self._started))

    @property
    def elapsed(self) -> float:
        """The seconds since :meth:`begin`."""
        return monotonic() - self._started

    def actions(self) -> list[ActionFigures]:
        """Return the figures of each action, brought up to date, sorted by name."""
        found = sorted(self._actions.values(), key=lambda action: action.name)
        for action in found:
            action.update()
        return found

    def exchanges(self) -> list[HttpFigures]:
        """Return the figures of each HTTP series, brought up to date, sorted by route and status."""
        found = sorted(self._exchanges.values(), key=lambda one: (route(one.series), one.series.status))
        for one in found:
            one.update()
        return found
