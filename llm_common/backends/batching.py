"""Collecting measurements raw and folding them into totals in batches: how the Prometheus backend is fast.

A recorder appends to a plain list, which is atomic and takes no lock. When a list has grown long, or when a scrape
comes, its head is sorted and counted into the buckets in one go. Whoever tracks does not wait for that: the one who
finds a fold under way leaves the samples in the list for the next. (Only where two threads come to look at the very
same moment does one wait, for the microseconds of one fold.) That also makes it safe to track from a signal handler or
a ``__del__`` that interrupts a fold.
"""

import logging
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from math import fsum, inf
from mmap import mmap
from threading import RLock
from typing import Protocol
from weakref import WeakSet

from prometheus_client.samples import Sample

from llm_common.backends.rendering import PLAIN_BELOW, go_number
from llm_common.catalog import Metric
from llm_common.ending import held

logger = logging.getLogger("llm_common")


class Batch(Protocol):
    """What collects measurements until they are folded."""

    def fold_now(self) -> None:
        """Move what was collected into the totals. Nobody else folds meanwhile."""

    def forget(self) -> None:
        """Begin at zero, in a child process: what was counted before the fork is its parent's."""


class Folder:
    """Lets one fold run at a time."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._folding = False
        _every.add(self)

    def offer(self, batch: Batch) -> None:
        """Fold ``batch``, unless a fold or a scrape is under way: then a later one will."""
        if not self._folding:
            self.fold(batch)

    def fold(self, batch: Batch) -> None:
        """Fold ``batch`` when no other fold runs any more."""
        warn_if_forked()
        with held(self._lock):
            if self._folding:  # this very thread was interrupted in a fold, and what interrupted it came here
                return
            self._folding = True
            try:
                batch.fold_now()
            finally:
                self._folding = False

    def after_fork(self) -> None:
        """Forget, in a child process, a lock whose owner was left behind in the parent."""
        self._lock = RLock()
        self._folding = False


_every: WeakSet[Folder] = WeakSet()


_warned = mmap(-1, 1)
"""Not zero once there was a warning; all processes share it that have forked from one another."""

_forked = False


def warn_if_forked() -> None:
    """Log a warning, one for all processes, where a child of a fork counts or is scraped."""
    global _forked
    if _forked:
        _forked = False
        if not _warned[0]:
            _warned[0] = 1
            with suppress(Exception):  # a broken log handler must not reach the application
                logger.warning(
                    "llm_common: process %d was forked, and counts for itself: its scrape shows neither its parent's "
                    "counts nor those of the parent's other children. With the Prometheus backend, set "
                    "PROMETHEUS_MULTIPROC_DIR to an empty directory before the processes start, so that each shows "
                    "the sum of all.",
                    os.getpid(),
                )


def _after_fork_in_child() -> None:
    global _forked
    _forked = True
    for folder in list(_every):
        folder.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def total(numbers: Iterable[float]) -> float:
    """Return the exact sum, correctly rounded; infinity where it is past all floating point numbers."""
    try:
        return fsum(numbers)
    except OverflowError:
        return inf


def counted(values: list[float], bounds: tuple[float, ...], buckets: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``buckets`` plus the ``values``, counted by inclusive upper bound; sorts ``values`` in place."""
    if not values:
        return buckets
    first, last = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
    counts = list(buckets)
    if first == last:
        counts[first] += len(values)
        return tuple(counts)
    values.sort()
    below = 0
    for index in range(first, last):
        upto = bisect_right(values, bounds[index], below)
        counts[index] += upto - below
        below = upto
    counts[last] += len(values) - below
    return tuple(counts)


class HistogramLines:
    """The lines of one histogram on the scrape: a template, cut where the labels of a single series belong."""

    __slots__ = ("_great", "_plain")

    def __init__(self, plain: list[str], great: list[str]) -> None:
        self._plain = plain
        self._great = great
        """For counts that prometheus_client writes with an exponent."""

    def filled(self, labels: str, buckets: tuple[int, ...], total: float) -> str:
        """Return the lines of a series with the buckets' counts, not cumulative, and the sum of all values."""
        cumulative = (*accumulate(buckets),)
        count = cumulative[-1]
        if count >= PLAIN_BELOW:
            return labels.join(self._great) % (*map(go_number, (*cumulative, count, total)),)
        return labels.join(self._plain) % (*cumulative, count, go_number(total))


def histogram_samples(
    metric: Metric, labels: dict[str, str], bounds: tuple[float, ...], buckets: tuple[int, ...], total: float
) -> Iterator[Sample]:
    """Yield the samples of a histogram's series: what :class:`HistogramLines` writes, for other encoders."""
    cumulative = list(accumulate(buckets))
    for bound, upto in zip((*bounds, inf), cumulative, strict=True):
        yield Sample(f"{metric.name}_bucket", {**labels, "le": go_number(bound)}, upto)
    yield Sample(f"{metric.name}_count", labels, cumulative[-1])
    yield Sample(f"{metric.name}_sum", labels, total)
