"""The values of the Prometheus backend in a single process: appended raw, folded into buckets in batches.

A recorder appends a duration to a plain list, which is atomic and takes no lock. When a list has grown long, or when
a scrape comes, its head is sorted and counted into the buckets in one go. Whoever tracks does not wait for that: the
one who finds a fold under way leaves the samples in the list for the next. (Only where two threads come to look at the
very same moment does one wait, for the microseconds of one fold.) That also makes it safe to track from a signal
handler or a ``__del__`` that interrupts a fold.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import fsum, inf
from threading import RLock
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from llm_common.backends.rendering import (
    PLAIN_BELOW,
    PreparedFamily,
    counter_template,
    go_number,
    histogram_template,
    placeholder,
    quoted,
)
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE
from llm_common.contract import FOLD_AT, Status


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


class Templates:
    """The lines of any action of one application on the scrape, with places for the action's name and the values."""

    def __init__(self, env: str, app: str, bounds: tuple[float, ...]) -> None:
        name = placeholder(env, app)
        self.counts = tuple(
            counter_template(ACTION_COUNT, (name, status.value, env, app)).split(name) for status in Status
        )
        """By status, in the order of :class:`Status`."""
        self.duration = histogram_template(ACTION_DURATION, (name, env, app), bounds).split(name)
        self.great_duration = histogram_template(ACTION_DURATION, (name, env, app), bounds, "%s").split(name)
        """For counts that prometheus_client writes with an exponent."""
        self.size = counter_template(ACTION_SIZE, (name, env, app)).split(name)


class ActionSeries:
    """The recorder of one action: all series that share its ``name``, ``env`` and ``app``."""

    __slots__ = ("_cancelled", "_sizes", "_store", "error", "labels", "ok", "templates", "totals")

    def __init__(self, store: "ActionStore", name: str, env: str, app: str) -> None:
        self._store = store
        self.labels = (name, env, app)
        self.templates = store.templates(env, app)
        self.ok: list[float] = []
        self.error: list[float] = []
        self._cancelled: list[float] = []
        self._sizes: list[float] = []
        self.totals = Totals(0, 0, 0, 0.0, (0,) * (len(store.bounds) + 1), None)

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        if status is Status.OK:
            samples = self.ok
        elif status is Status.ERROR:
            samples = self.error
        else:
            samples = self._cancelled
        samples.append(seconds)
        if len(samples) >= FOLD_AT:
            self.fold()

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        self._sizes.append(amount)
        if len(self._sizes) >= FOLD_AT:
            self.fold()

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds of the duration's buckets, in seconds."""
        return self._store.bounds

    def fold(self) -> None:
        """Move what the lists hold into :attr:`totals`, unless a fold or a scrape is under way: a later one will."""
        self._store.fold(self)

    def fold_now(self) -> None:
        """Move what the lists hold into :attr:`totals`. The store's lock is held."""
        ok, error, cancelled, sizes = self.ok, self.error, self._cancelled, self._sizes
        oks, errors, cancellations, sized = len(ok), len(error), len(cancelled), len(sizes)
        durations = ok[:oks] + error[:errors] + cancelled[:cancellations]
        before = self.totals
        size = before.size
        if sized:
            size = total((size or 0.0, *sizes[:sized]))
        totals = Totals(
            before.ok + oks,
            before.error + errors,
            before.cancelled + cancellations,
            total((before.seconds, *durations)),
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


def total(numbers: Iterable[float]) -> float:
    """Return the exact sum, correctly rounded; infinity where it is past all floating point numbers."""
    try:
        return fsum(numbers)
    except OverflowError:
        return inf


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
        self._templates: dict[tuple[str, str], Templates] = {}
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

    def templates(self, env: str, app: str) -> Templates:
        """Return the templates that all actions of one application share."""
        key = (env, app)
        return self._templates.get(key) or self._templates.setdefault(key, Templates(env, app, self.bounds))

    def fold(self, series: ActionSeries) -> None:
        """Fold one series, unless a fold or a scrape is under way: then a later one will."""
        if not self._folding:
            self._fold(series)

    def snapshot(self) -> list[tuple[ActionSeries, Totals]]:
        """Return every series that has counted anything, with its totals up to now."""
        every = list(self._series.values())
        for one in every:  # one by one, so that the lock is never held for long
            self._fold(one)
        return [(one, totals) for one in every if any((totals := one.totals)[:3]) or totals.size is not None]

    def _fold(self, series: ActionSeries) -> None:
        with self._lock:
            if self._folding:  # this very thread was interrupted in a fold, and what interrupted it came here
                return
            self._folding = True
            try:
                series.fold_now()
            finally:
                self._folding = False

    def after_fork(self) -> None:
        """Forget, in a child process, a lock whose owner was left behind in the parent."""
        self._lock = RLock()
        self._folding = False

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        for metric in (ACTION_COUNT, ACTION_DURATION, ACTION_SIZE):
            yield Family(metric.family, metric.help, metric.kind.value)

    def collect(self) -> Iterator[Family]:
        """Yield the families with what was counted up to now; called by the registry at each scrape."""
        every = self.snapshot()
        yield PreparedFamily(ACTION_COUNT, lambda: _count_text(every), lambda: _count_samples(every))
        yield PreparedFamily(ACTION_DURATION, lambda: _duration_text(every), lambda: _duration_samples(every))
        yield PreparedFamily(ACTION_SIZE, lambda: _size_text(every), lambda: _size_samples(every))


Snapshot = list[tuple[ActionSeries, Totals]]


def _count_text(every: Snapshot) -> Iterator[str]:
    for series, totals in every:
        name = quoted(series.labels[0])
        for template, ended in zip(series.templates.counts, totals[:3], strict=True):
            if ended:
                yield name.join(template) % go_number(ended)


def _duration_text(every: Snapshot) -> Iterator[str]:
    for series, totals in every:
        cumulative = (*accumulate(totals.buckets),)
        count = cumulative[-1]
        name = quoted(series.labels[0])
        if count >= PLAIN_BELOW:
            yield name.join(series.templates.great_duration) % (*map(go_number, (*cumulative, count, totals.seconds)),)
        elif count:
            yield name.join(series.templates.duration) % (*cumulative, count, go_number(totals.seconds))


def _size_text(every: Snapshot) -> Iterator[str]:
    for series, totals in every:
        if totals.size is not None:
            yield quoted(series.labels[0]).join(series.templates.size) % go_number(totals.size)


def _count_samples(every: Snapshot) -> list[Sample]:
    return [
        Sample(ACTION_COUNT.name, {**labels(series), "status": status.value}, ended)
        for series, totals in every
        for status, ended in zip(Status, totals[:3], strict=True)
        if ended
    ]


def _duration_samples(every: Snapshot) -> list[Sample]:
    samples = []
    for series, totals in every:
        cumulative = list(accumulate(totals.buckets))
        if cumulative[-1]:
            common = labels(series)
            for bound, upto in zip((*series.bounds, inf), cumulative, strict=True):
                le = {**common, "le": go_number(bound)}
                samples.append(Sample(f"{ACTION_DURATION.name}_bucket", le, upto))
            samples.append(Sample(f"{ACTION_DURATION.name}_count", common, cumulative[-1]))
            samples.append(Sample(f"{ACTION_DURATION.name}_sum", common, totals.seconds))
    return samples


def _size_samples(every: Snapshot) -> list[Sample]:
    return [
        Sample(ACTION_SIZE.name, labels(series), totals.size) for series, totals in every if totals.size is not None
    ]


def labels(series: ActionSeries) -> dict[str, str]:
    """Return the labels that all series of an action share."""
    return dict(zip(ACTION_DURATION.labels, series.labels, strict=True))
