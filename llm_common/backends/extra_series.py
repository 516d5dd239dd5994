"""The metrics beside the contract in the Prometheus backend of a single process: their recorders and their lines.

They have few series, so their lines are written one by one, without the templates that actions and HTTP have.
"""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from llm_common.backends.batching import Folder, counted, histogram_samples, total
from llm_common.backends.rendering import PreparedFamily, counter_template, go_number, histogram_template
from llm_common.catalog import BESIDE, Kind, Metric

FOLD_AT = 64
"""How many amounts a list holds before it is folded."""


class Sum(NamedTuple):
    """What was folded so far. Immutable, so that a reader always sees values that belong together."""

    amount: float
    """The sum of all that was recorded."""
    buckets: tuple[int, ...]
    """Of a histogram: how many amounts fell into each bucket, not cumulative; the last is the one up to ``+Inf``."""


class ExtraSeries:
    """The recorder of one series of a metric beside the contract."""

    __slots__ = ("_amounts", "_folder", "bounds", "metric", "sum", "values")

    def __init__(self, folder: Folder, metric: Metric, values: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._folder = folder
        self._amounts: list[float] = []
        self.metric = metric
        self.values = values
        """Those of the metric's labels, in that order."""
        self.bounds = bounds
        """The upper bounds of a histogram's buckets; none for other kinds."""
        self.forget()

    def forget(self) -> None:
        """Begin at zero, in a child process: what was counted before the fork is its parent's."""
        self.sum = Sum(0.0, (0,) * (len(self.bounds) + 1))
        self._amounts.clear()

    def record(self, amount: float) -> None:
        """Add to a counter or gauge, or observe in a histogram."""
        self._amounts.append(amount)
        if len(self._amounts) >= FOLD_AT:
            self._folder.offer(self)

    def fold_now(self) -> None:
        """Move what was collected into :attr:`sum`. Nobody else folds meanwhile."""
        amounts = self._amounts
        taken = len(amounts)
        before = self.sum
        added = amounts[:taken]
        amount = total((before.amount, *added))
        folded = Sum(amount, counted(added, self.bounds, before.buckets))
        # As in ActionSeries.fold_now(): no call stands between the two halves of the hand-over.
        self.sum = folded
        del amounts[:taken]

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the series."""
        return dict(zip(self.metric.labels, self.values, strict=True))

    def text(self, reached: Sum) -> str:
        """Return the lines of the series on a scrape."""
        if self.metric.kind is not Kind.HISTOGRAM:
            return counter_template(self.metric, self.values) % go_number(reached.amount)
        numbers = [sample.value for sample in self.samples(reached)]
        return histogram_template(self.metric, self.values, self.bounds, "%s") % (*map(go_number, numbers),)

    def samples(self, reached: Sum) -> Iterator[Sample]:
        """Yield the samples of the series."""
        if self.metric.kind is not Kind.HISTOGRAM:
            yield Sample(self.metric.name, self.labels, reached.amount)
        else:
            yield from histogram_samples(self.metric, self.labels, self.bounds, reached.buckets, reached.amount)


def families(every: list[ExtraSeries]) -> Iterator[Family]:
    """Yield the families that have any series."""
    for metric in BESIDE:
        found = [(one, one.sum) for one in every if one.metric is metric]
        if found:
            yield _family(metric, found)


def _family(metric: Metric, found: list[tuple[ExtraSeries, Sum]]) -> Family:
    return PreparedFamily(
        metric,
        lambda _: (one.text(reached) for one, reached in found),
        lambda: [sample for one, reached in found for sample in one.samples(reached)],
    )
