"""What exists: series, their labels, and the values that labels can have, made from a catalogue as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_common.catalog import (
    ACTION_DURATION,
    CATALOGUE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    OVERFLOW,
    Buckets,
    Kind,
    Metric,
)
from llm_common.contract import Status
from llm_common.http_labels import CANCELLED, ERROR, METHODS, OTHER_METHOD, SERVER, TELEGRAM, TIMEOUT
from llm_common.monitoring.promql import EVERY_RECORDING, PARTS, Recording, labels_of

PREFIX = "genapp_"
"""What the names of our metrics begin with; a name with it that the catalogue lacks is wrong for certain."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values that a label can have."""

    known: frozenset[str] | None = None
    """All of them, or ``None`` where the application chooses them."""
    ending: str = ""
    """Values that end like this exist too, beside those that are known."""
    numbers: bool = False
    """Whether they are bounds of buckets, which are compared as numbers."""
    seen: frozenset[str] | None = None
    """Those that a page shows, where the application chooses them."""

    def has(self, value: str) -> bool:
        """Return whether a label can have this value."""
        if self.known is None or value in self.known or (self.ending and value.endswith(self.ending)):
            return True
        return self.numbers and number(value) in {number(one) for one in self.known}

    def __or__(self, other: "Values") -> "Values":
        """Return the values of either."""
        if self.known is None or other.known is None:
            seen = self.seen | other.seen if self.seen is not None and other.seen is not None else None
            return Values(seen=seen)
        return Values(self.known | other.known, self.ending or other.ending, self.numbers and other.numbers)


def number(text: str) -> float | None:
    """Return a bound as a number."""
    try:
        return float(text)
    except ValueError:
        return None


ANY = Values()

HTTP_VALUES: Mapping[str, Values] = {
    "method": Values(METHODS | {OTHER_METHOD, OVERFLOW}),
    "status": Values(frozenset({*map(str, range(100, 1000)), ERROR, TIMEOUT, CANCELLED, OVERFLOW})),
    "app_type": Values(frozenset({SERVER, TELEGRAM, "llm", "triton", OVERFLOW}), ending="_api"),
    "direction": Values(frozenset({"in", "out"})),
}
"""Closed sets of values in metrics of HTTP requests."""

ACTION_VALUES: Mapping[str, Values] = {
    "status": Values(frozenset(map(str, Status))),
    "token_type": Values(frozenset({"input", "output"})),
}
"""Closed sets of values in metrics of actions."""


CONTRACT_BOUNDS: Mapping[str, tuple[float, ...]] = {
    ACTION_DURATION.name: (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 600, 3600, 43200, 86400),
    HTTP_REQUEST_DURATION.name: (0.1, 0.5, 1, 3, 5, 10, 20, 30, 60, 120, 300, 600, 3600),
    HTTP_REQUEST_SIZE.name: (1e2, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 5e7, 1e8, 5e8, 1e9),
}
"""Bounds that every application has, so that quantiles can be summed over all of them."""


def values_of(metric: Metric) -> Mapping[str, Values]:
    """Return what values each label of a metric can have."""
    closed = HTTP_VALUES if "_http_" in metric.name else ACTION_VALUES
    return {label: closed.get(label, ANY) for label in metric.labels}


@dataclass(frozen=True, slots=True)
class Series:
    """The series of one name, as a query sees them."""

    labels: Mapping[str, Values] | None = None
    """Without those that a scrape adds; ``None`` where nobody knows them."""
    grows: bool | None = None
    """Whether they only grow, as counters do; ``None`` where nobody knows."""


SCRAPED = Series({}, grows=False)
BUILT_IN: Mapping[str, Series] = {
    "up": SCRAPED,
    "scrape_duration_seconds": SCRAPED,
    "scrape_samples_scraped": SCRAPED,
    "scrape_samples_post_metric_relabeling": SCRAPED,
    "scrape_series_added": SCRAPED,
    "scrape_timeout_seconds": SCRAPED,
    "scrape_sample_limit": SCRAPED,
    "scrape_body_size_bytes": SCRAPED,
    "ALERTS": Series(grows=False),
    "ALERTS_FOR_STATE": Series(grows=False),
}
"""What Prometheus itself adds to every scrape and every alert."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What queries may name."""

    series: Mapping[str, Series]
    """What is scraped, without the labels of its target."""
    recordings: Mapping[str, Recording] = field(default_factory=dict)
    """What our own rules record of it."""
    rules: Mapping[str, Series] = field(default_factory=dict)
    """What the rules of files record that are checked together."""
    target_labels: frozenset[str] = frozenset({"instance", "job"})
    """What a scrape adds to every series."""
    complete: bool = False
    """Whether names without our prefix have to be known as well."""

    def find(self, name: str) -> Series | None:
        """Return the series of a name with the labels of their target, or ``None`` where there are none."""
        if name in self.rules:
            return self.rules[name]
        if name in self.recordings:
            recording = self.recordings[name]
            labels = self.series[series_name(recording.metric, recording.part)].labels or {}
            return Series({label: labels.get(label, ANY) for label in recording.labels}, grows=False)
        found = self.series.get(name)
        if found is None or found.labels is None:
            return found
        return Series(dict.fromkeys(self.target_labels, ANY) | dict(found.labels), found.grows)

    def judges(self, name: str) -> bool:
        """Return whether a name that isn't known is wrong: always where it is one of ours."""
        return self.complete or any(part.startswith(PREFIX) for part in name.split(":"))

    @property
    def names(self) -> list[str]:
        """Every name that is known."""
        return [*self.series, *self.recordings, *self.rules]


def series_name(metric: Metric, part: str) -> str:
    """Return what the series of a part of a metric are called."""
    return f"{metric.name}_{part}" if part else metric.name


def vocabulary(
    metrics: Iterable[Metric] = CATALOGUE,
    recordings: Iterable[Recording] = EVERY_RECORDING,
    *,
    buckets: Buckets | None = None,
    target_labels: Iterable[str] = (),
) -> Vocabulary:
    """Return what a catalogue and the rules that record its rates make.

    ``buckets`` are the bounds in force, where they aren't those of the catalogue.
    """
    series: dict[str, Series] = dict(BUILT_IN)
    for metric in metrics:
        for part in PARTS[metric.kind]:
            labels = _labels(metric, part, buckets)
            series[series_name(metric, part)] = Series(labels, grows=metric.kind is not Kind.GAUGE)
    return Vocabulary(
        series,
        {one.name: one for one in recordings},
        target_labels=frozenset({"instance", "job", *target_labels}),
    )


def _labels(metric: Metric, part: str, buckets: Buckets | None) -> Mapping[str, Values]:
    values = values_of(metric)
    if "le" not in labels_of(metric, part):
        return values
    bounds = (buckets.of(metric) if buckets else ()) or metric.buckets
    return {**values, "le": Values(frozenset({*map(repr, bounds), "+Inf"}), numbers=True)}
