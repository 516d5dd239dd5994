"""The metrics of the catalogue as aioprometheus collectors that hold no values: they read those of a store."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, NoReturn

from aioprometheus.collectors import Collector, Counter, Gauge, Histogram, Registry
from prometheus_client.samples import Sample

from llm_common.backends.rendering import go_number
from llm_common.backends.store import BatchedStore
from llm_common.catalog import Metric


class Bound(float):
    """A bucket's upper bound, written as every other backend writes it: series of all of them can be added up."""

    def __str__(self) -> str:
        return go_number(self)


def shown_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels as they may stand on a scrape, since aioprometheus writes them as they are.

    The rules are those of the text format: a backslash before a backslash, a quote and ``n`` for a newline.
    """
    return {name: value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for name, value in labels.items()}


class CountedBy(ABC, Collector):
    """A collector whose values are those that a store has for one metric."""

    def __init__(self, metric: Metric, store: BatchedStore, registry: Registry) -> None:
        self.metric = metric
        self.store = store
        super().__init__(metric.name, metric.help, registry=registry)

    def get_all(self) -> list[tuple[dict[str, str], Any]]:
        """Return the labels, as they stand on a scrape, and the value of each series."""
        return [(shown_labels(labels), value) for labels, value in self._series()]

    def get_value(self, labels: Mapping[str, str]) -> Any:
        """Return the value of the series that has these labels. Raises :class:`KeyError` where there is none."""
        for of, value in self._series():
            if of == labels:
                return value
        raise KeyError(labels)

    def get(self, labels: Mapping[str, str]) -> Any:
        """Return the value of the series that has these labels. Raises :class:`KeyError` where there is none."""
        return self.get_value(labels)

    def set_value(self, labels: Mapping[str, str], value: Any) -> NoReturn:
        """Raise :class:`TypeError`: the values are llm_common's."""
        raise TypeError(
            f"{self.name} is counted by llm_common and can't be changed from outside; "
            "track an action or a request, or define a metric of another name"
        )

    def add(self, labels: Mapping[str, str], value: Any) -> NoReturn:
        """Raise :class:`TypeError`: the values are llm_common's."""
        self.set_value(labels, value)

    observe = add

    def _samples(self) -> list[Sample]:
        return [one for family in self.store.collect() if family.name == self.metric.family for one in family.samples]

    @abstractmethod
    def _series(self) -> Iterator[tuple[dict[str, str], Any]]:
        """Yield the labels, as they were recorded, and the value of each series."""


class StoredCounter(CountedBy, Counter):
    """A counter of the catalogue."""

    def _series(self) -> Iterator[tuple[dict[str, str], float]]:
        for sample in self._samples():
            yield sample.labels, float(sample.value)


class StoredGauge(CountedBy, Gauge):
    """A gauge of the catalogue."""

    _series = StoredCounter._series


class StoredHistogram(CountedBy, Histogram):
    """A histogram of the catalogue. A series' value has its buckets by bound, cumulative, its count and its sum."""

    def __init__(self, metric: Metric, store: BatchedStore, registry: Registry) -> None:
        self.upper_bounds = (*metric.buckets, inf)
        super().__init__(metric, store, registry)

    def _series(self) -> Iterator[tuple[dict[str, str], dict[float | str, float]]]:
        value: dict[float | str, float] = {}
        for sample in self._samples():  # of each series its buckets, then its count, then its sum
            if "le" in sample.labels:
                value[Bound(sample.labels["le"])] = float(sample.value)
            elif sample.name.endswith("_count"):
                value[self.COUNT_KEY] = float(sample.value)
            else:
                value[self.SUM_KEY] = float(sample.value)
                yield sample.labels, value
                value = {}
