"""What a scrape shows for given measurements: the model that backends are compared with."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from math import fsum, inf

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from llm_common.backends.memory import Record
from llm_common.backends.rendering import go_number
from llm_common.catalog import CATALOGUE, Buckets, Kind, Metric
from llm_common.testing.language import measurements

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels, sorted."""


def families(records: Iterable[Record], buckets: Buckets) -> list[Family]:
    """Return the families of the catalogue, with the samples that stand for ``records``.

    Histograms have the bounds of ``buckets``. A series without measurements has no samples.
    """
    every = list(records)
    return [_family(metric, every, buckets) for metric in CATALOGUE]


def values(shown: Iterable[Family]) -> dict[Series, float]:
    """Return the value of each series of these families. The bounds of buckets are written as Prometheus does."""
    return {(sample.name, labels_of(sample)): float(sample.value) for family in shown for sample in family.samples}


def labels_of(sample: Sample) -> tuple[tuple[str, str], ...]:
    """Return the labels of a sample, sorted, with ``le`` as Prometheus writes numbers."""
    labels = dict(sample.labels)
    if "le" in labels:
        labels["le"] = go_number(float(labels["le"]))
    return tuple(sorted(labels.items()))


def bounds(metric: Metric, buckets: Buckets) -> tuple[float, ...]:
    """Return the upper bounds that ``buckets`` has for a histogram of the catalogue, without ``+Inf``."""
    return buckets.of(metric)


def _family(metric: Metric, records: Iterable[Record], buckets: Buckets) -> Family:
    amounts: dict[tuple[str, ...], list[float]] = {}
    for labels, amount in measurements(metric, records):
        amounts.setdefault(tuple(labels[label] for label in metric.labels), []).append(amount)
    family = Family(metric.family, metric.help, metric.kind.value)
    for label_values, observed in amounts.items():
        labels = dict(zip(metric.labels, label_values, strict=True))
        if metric.kind is not Kind.HISTOGRAM:
            family.samples.append(Sample(metric.name, labels, fsum(observed)))
        else:
            family.samples += _histogram(metric, labels, observed, bounds(metric, buckets))
    return family


def _histogram(
    metric: Metric, labels: Mapping[str, str], observed: list[float], upper: tuple[float, ...]
) -> list[Sample]:
    ordered = sorted(observed)
    counts = [
        Sample(
            f"{metric.name}_bucket",
            {**labels, "le": go_number(bound)},
            float(bisect_right(ordered, bound)),
        )
        for bound in (*upper, inf)
    ]
    return [
        *counts,
        Sample(f"{metric.name}_count", dict(labels), float(len(observed))),
        Sample(f"{metric.name}_sum", dict(labels), fsum(observed)),
    ]
