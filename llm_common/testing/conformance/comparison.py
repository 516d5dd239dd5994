"""Comparing what a backend shows with what it was given, and saying in words where they differ."""

from collections.abc import Iterable, Mapping
from math import isclose

from prometheus_client.metrics_core import Metric as Family

from llm_common.catalog import CATALOGUE, Buckets, Kind, Metric
from llm_common.testing.families import Series, bounds, labels_of, values

PREFIX = "genapp_"


MOST = 12
"""How many differences a message lists."""


def check_shown(shown: Iterable[Family], expected: Iterable[Family], buckets: Buckets, when: str = "") -> None:
    """Raise :class:`AssertionError` that lists where ``shown`` departs from the contract or from ``expected``.

    Families of other names are none of our business. A series that was never measured may be shown as zero.
    """
    ours = [family for family in shown if family.name.startswith(PREFIX)]
    problems = [*_departures(ours, buckets), *_differences(values(ours), values(expected))]
    more = [f"… and {len(problems) - MOST} more"] if len(problems) > MOST else []
    assert not problems, "\n  ".join(
        [f"the backend shows other values than it was given{when}:", *problems[:MOST], *more]
    )


def series_name(series: Series) -> str:
    """Return a series as it stands on a scrape."""
    name, labels = series
    return f"{name}{{{','.join(f'{label}={value!r}' for label, value in labels)}}}"


def _sample_names(metric: Metric) -> dict[str, frozenset[str]]:
    """Return the names of the samples that a metric has, each with its labels."""
    labels = frozenset(metric.labels)
    if metric.kind is not Kind.HISTOGRAM:
        return {metric.name: labels}
    name = metric.name
    return {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}


def _departures(shown: list[Family], buckets: Buckets) -> list[str]:
    """Return what no values could excuse: names, types, labels and bounds that aren't those of the catalogue."""
    known = {name: (metric, labels) for metric in CATALOGUE for name, labels in _sample_names(metric).items()}
    found: dict[str, None] = {}
    seen: dict[Series, int] = {}
    bucket_bounds: dict[Series, list[str]] = {}
    for family in shown:
        for sample in family.samples:
            if sample.name not in known:
                found[f"{sample.name} is no name of the catalogue"] = None
                continue
            metric, labels = known[sample.name]
            if family.type != metric.kind.value:
                found[f"{metric.name} is a {family.type}; it must be a {metric.kind.value}"] = None
            if set(sample.labels) != labels:
                given, due = ", ".join(sample.labels), ", ".join(sorted(labels))
                found[f"{sample.name} has the labels {given}; they must be {due}"] = None
            key = sample.name, labels_of(sample)
            seen[key] = seen.get(key, 0) + 1
            if "le" in sample.labels:
                rest = tuple(pair for pair in key[1] if pair[0] != "le")
                bucket_bounds.setdefault((metric.name, rest), []).append(sample.labels["le"])
    found |= {f"{series_name(key)} is shown {times} times": None for key, times in seen.items() if times > 1}
    by_name = {metric.name: metric for metric in CATALOGUE}
    for (name, _), given_bounds in bucket_bounds.items():
        due_bounds = [*bounds(by_name[name], buckets), float("inf")]
        if sorted(map(float, given_bounds)) != due_bounds:
            found[f"{name} has the bounds {', '.join(given_bounds)}; they must be {due_bounds}"] = None
    return list(found)


def _differences(shown: Mapping[Series, float], expected: Mapping[Series, float]) -> list[str]:
    found = [
        f"{series_name(key)} is {shown.get(key, 'missing')}; it must be {value}"
        for key, value in expected.items()
        if value != shown.get(key) and not (key in shown and _sums_agree(key, value, shown[key]))
    ]
    found += [
        f"{series_name(key)} is {value}; nothing of the kind was measured"
        for key, value in shown.items()
        if value and key not in expected
    ]
    return found


def _sums_agree(series: Series, left: float, right: float) -> bool:
    """Return whether two sums differ by rounding alone; counts must be exact."""
    return series[0].endswith(("_sum", "_size_total")) and isclose(left, right, rel_tol=1e-9)
