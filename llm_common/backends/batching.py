"""The values of the Prometheus backend in a single process: appended raw, folded into buckets in batches.

A recorder appends a duration to a plain list, which is atomic and takes no lock. When a list has grown long, or when
a scrape comes, its head is sorted and counted into the buckets in one go. Nobody who tracks ever waits: whoever finds a
fold or a scrape under way leaves its samples in the list for the next one. That also makes it safe to track from a
signal handler or a ``__del__`` that interrupts a fold.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import fsum
from threading import RLock
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE
from llm_common.contract import Status

FOLD_AT = 256
"""How many samples a list holds before it is folded. More would cost memory per action, fewer would cost time."""


class Totals(NamedTuple):
    """What was folded so far. Immutable, so that a reader always sees values that belong together."""

    ok: int
    error: int
    cancelled: int
    seconds: float
    buckets: tuple[int, ...]
    """How many durations fell into each bucket, not cumulative; the last is the one up to ``+Inf``."""
    size: float | None
    """``None`` until a size was given, so that the series appears only then."""


class ActionSeries:
    """The recorder of one action: all series that share its ``name``, ``env`` and ``app``."""

    __slots__ = ("_cancelled", "_error", "_ok", "_sizes", "_store", "app", "env", "name", "totals")

    def __init__(self, store: "ActionStore", name: str, env: str, app: str) -> None:
        self._store = store
        self.name = name
        self.env = env
        self.app = app
        self._ok: list[float] = []
        self._error: list[float] = []
        self._cancelled: list[float] = []
        self._sizes: list[float] = []
        self.totals = Totals(0, 0, 0, 0.0, (0,) * (len(store.bounds) + 1), None)

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        if status is Status.OK:
            samples = self._ok
        elif status is Status.ERROR:
            samples = self._error
        else:
            samples = self._cancelled
        samples.append(seconds)
        if len(samples) >= FOLD_AT:
            self._store.fold(self)

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        self._sizes.append(amount)
        if len(self._sizes) >= FOLD_AT:
            self._store.fold(self)

    def fold(self) -> None:
        """Move what the lists hold into :attr:`totals`. The store's lock is held."""
        ok, error, cancelled, sizes = self._ok, self._error, self._cancelled, self._sizes
        oks, errors, cancellations, sized = len(ok), len(error), len(cancelled), len(sizes)
        durations = ok[:oks] + error[:errors] + cancelled[:cancellations]
        before = self.totals
        size = before.size
        if sized:
            size = fsum((size or 0.0, *sizes[:sized]))
        totals = Totals(
            before.ok + oks,
            before.error + errors,
            before.cancelled + cancellations,
            fsum((before.seconds, *durations)),
            counted(durations, self._store.bounds, before.buckets),
            size,
        )
        # No call stands between the two halves of this hand-over: the interpreter runs signal handlers, and lets
        # exceptions of other threads in, only at calls and jumps. So nothing can be lost or doubled by either.
        self.totals = totals
        del ok[:oks]
        del error[:errors]
        del cancelled[:cancellations]
        del sizes[:sized]


def counted(durations: list[float], bounds: tuple[float, ...], buckets: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``buckets`` plus the ``durations``, counted by inclusive upper bound; sorts ``durations`` in place."""
    if not durations:
        return buckets
    first, last = bisect_left(bounds, min(durations)), bisect_left(bounds, max(durations))
    counts = list(buckets)
    if first == last:
        counts[first] += len(durations)
        return tuple(counts)
    durations.sort()
    below = 0
    for index in range(first, last):
        upto = bisect_right(durations, bounds[index], below)
        counts[index] += upto - below
        below = upto
    counts[last] += len(durations) - below
    return tuple(counts)


class ActionStore:
    """All action series of one registry, and the collector that shows them on its scrapes.

    It outlives configurations: what was counted under an earlier one stays on the scrape.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._series: dict[tuple[str, str, str], ActionSeries] = {}
        self._lock = RLock()
        self._folding = False

    @property
    def empty(self) -> bool:
        """Whether no action was ever bound, so that the bounds can still change."""
        return not self._series

    def action(self, name: str, env: str, app: str) -> ActionSeries:
        """Return the recorder of an action, always the same for the same labels."""
        key = (name, env, app)
        return self._series.get(key) or self._series.setdefault(key, ActionSeries(self, name, env, app))

    def fold(self, series: ActionSeries) -> None:
        """Fold one series, unless a fold or a scrape is under way: then a later one will."""
        if not self._folding:
            self._fold((series,))

    def snapshot(self) -> list[tuple[ActionSeries, Totals]]:
        """Return every series that has counted anything, with its totals up to now."""
        every = list(self._series.values())
        self._fold(every)
        return [(one, totals) for one in every if any((totals := one.totals)[:3]) or totals.size is not None]

    def _fold(self, every: Iterable[ActionSeries]) -> None:
        with self._lock:
            if self._folding:  # this very thread was interrupted in a fold, and what interrupted it came here
                return
            self._folding = True
            try:
                for one in every:
                    one.fold()
            finally:
                self._folding = False

    def after_fork(self) -> None:
        """Forget, in a child process, a lock whose owner was left behind in the parent."""
        self._lock = RLock()
        self._folding = False

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        yield CounterMetricFamily(ACTION_COUNT.family, ACTION_COUNT.help, labels=ACTION_COUNT.labels)
        yield HistogramMetricFamily(ACTION_DURATION.family, ACTION_DURATION.help, labels=ACTION_DURATION.labels)
        yield CounterMetricFamily(ACTION_SIZE.family, ACTION_SIZE.help, labels=ACTION_SIZE.labels)

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their samples; called by the registry at each scrape."""
        count = CounterMetricFamily(ACTION_COUNT.family, ACTION_COUNT.help, labels=ACTION_COUNT.labels)
        duration = HistogramMetricFamily(ACTION_DURATION.family, ACTION_DURATION.help, labels=ACTION_DURATION.labels)
        size = CounterMetricFamily(ACTION_SIZE.family, ACTION_SIZE.help, labels=ACTION_SIZE.labels)
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        for series, totals in self.snapshot():
            labels = (series.name, series.env, series.app)
            for status, ended in zip(Status, totals[:3], strict=True):
                if ended:
                    count.add_metric((series.name, status.value, series.env, series.app), ended)
            if any(totals.buckets):
                cumulative = zip(bounds, accumulate(totals.buckets), strict=True)
                duration.add_metric(labels, list(cumulative), totals.seconds)
            if totals.size is not None:
                size.add_metric(labels, totals.size)
        yield from (count, duration, size)
