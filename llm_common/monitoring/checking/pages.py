"""What a page of metrics shows, compared with the contract; and what it adds to what queries may name."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from io import StringIO

from prometheus_client import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.samples import Sample

from llm_common.catalog import OVERFLOW, Kind, Metric
from llm_common.lint.names import problem_of
from llm_common.monitoring.checking.vocabulary import (
    ANY,
    CONTRACT_BOUNDS,
    PREFIX,
    Series,
    Values,
    Vocabulary,
    number,
    series_name,
    values_of,
)
from llm_common.monitoring.promql import PARTS, labels_of
from llm_common.reporting.rules import nearest

Report = Callable[[str, str, str, str], object]
"""Takes a code, a message, a fix, and the series that is wrong, as far as it is known."""

SHOWN = 5
"""How many values of a kind a message names."""


class PageError(ValueError):
    """A page isn't in an exposition format. The message says why."""


def families_in(text: str, content_type: str = "") -> list[Family]:
    """Return the families of a page, as prometheus_client reads them. Raises :class:`PageError`."""
    strict = "openmetrics" in content_type or (not content_type and text.endswith("# EOF\n"))
    parse = openmetrics.text_fd_to_metric_families if strict else text_fd_to_metric_families
    try:
        return list(parse(StringIO(text)))
    except Exception as problem:  # what is no page makes this parser raise whatever its code comes upon
        raise PageError(" ".join(str(problem).split()) or type(problem).__name__) from None


def listed(values: Iterable[str]) -> str:
    """Return values for a message, the first few of them."""
    ordered = sorted(values)
    more = f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else ""
    return ", ".join(map(repr, ordered[:SHOWN])) + more


def rest(sample: Sample) -> frozenset[tuple[str, str]]:
    """Return the labels of a sample but ``le``."""
    return frozenset(pair for pair in sample.labels.items() if pair[0] != "le")


class Page:
    """The check of one page."""

    def __init__(self, metrics: Sequence[Metric], report: Report) -> None:
        """Compare with a catalogue; each finding is reported once."""
        self._report = report
        self._known = {series_name(metric, part): (metric, part) for metric in metrics for part in PARTS[metric.kind]}
        self._metrics = {metric.name: metric for metric in metrics}
        self._said: set[tuple[str, ...]] = set()
        self._seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        self._applications: set[tuple[str, str]] = set()

    def say(self, code: str, message: str, fix: str, name: str) -> None:
        """Report something, once."""
        if (code, message) not in self._said:
            self._said.add((code, message))
            self._report(code, message, fix, name)

    def check(self, families: Sequence[Family]) -> None:
        """Report what is wrong with a page."""
        ours = [(family, sample) for family in families for sample in family.samples if sample.name.startswith(PREFIX)]
        for family in families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                if key in self._seen:
                    message = f"the series {sample.name} with the labels {dict(sample.labels)} is there twice"
                    self.say("MC506", message, "collect it in one registry", sample.name)
                self._seen.add(key)
        for family, sample in ours:
            metric, part = self._known.get(sample.name, (None, ""))
            if metric is None:
                self.unknown(sample.name)
            else:
                self.sample(family, sample, metric, part)
        self.histograms([sample for _, sample in ours])
        if len(self._applications) > 1:
            pairs = listed(f"{env}/{app}" for env, app in self._applications)
            message = f"the page has series of several applications or environments: {pairs}"
            self.say("MC510", message, "call configure() once, before the first action", ours[0][1].name)
        if not ours:
            message = "the page has no metric of the contract"
            self.say("MC513", message, "is it the page of the application, and has it done anything yet?", "")

    def unknown(self, name: str) -> None:
        """Report a name of ours that the catalogue lacks."""
        base = name.removesuffix("_created")
        if base != name and (base in self._metrics or f"{base}_total" in self._metrics):
            fix = "expose with llm_common.prometheus, or call prometheus_client.disable_created_metrics()"
            self.say("MC505", f"{name} is a twin that the contract doesn't have", fix, name)
            return
        close = nearest(name, list(self._known))
        fix = f"is {close!r} meant?" if close else "give your own metrics another prefix"
        self.say("MC501", f"the catalogue has no {name!r}", fix, name)

    def sample(self, family: Family, sample: Sample, metric: Metric, part: str) -> None:
        """Report what is wrong with a sample of a metric of ours."""
        name = sample.name
        if family.type != str(metric.kind):
            fix = f"the comment before it has to say: # TYPE {metric.name} {metric.kind}"
            self.say("MC502", f"{metric.name} is a {metric.kind}, and the page says {family.type}", fix, name)
        self.labels(sample, set(labels_of(metric, part)))
        values = values_of(metric)
        for label, value in sample.labels.items():
            if not values.get(label, ANY).has(value):
                self.value(metric, label, value, values[label], name)
            if value == OVERFLOW:
                message = f"{metric.name} has series that count together what is past the limit of series"
                self.say("MC511", message, f"find the {label} that is built from data, or raise max_series", name)
        action = sample.labels.get("name", OVERFLOW) if "name" in metric.labels else OVERFLOW
        if action != OVERFLOW and (problem := problem_of(action)):
            self.say("MC512", problem[1], problem[2], name)
        if metric.kind != Kind.GAUGE and part != "sum" and not 0 <= sample.value < math.inf:
            self.say("MC509", f"{name} is {sample.value:g}", "a counter is a number that only grows, from 0", name)
        if {"env", "app"} <= sample.labels.keys():
            self._applications.add((sample.labels["env"], sample.labels["app"]))

    def labels(self, sample: Sample, due: set[str]) -> None:
        """Report labels that are missing, or that the contract doesn't have."""
        if missing := due - sample.labels.keys():
            self.say(
                "MC503",
                f"{sample.name} lacks {listed(missing)}",
                "its labels are a contract: emit them all",
                sample.name,
            )
        if extra := sample.labels.keys() - due:
            fix = "drop it; what else is worth measuring becomes a metric of its own"
            self.say("MC503", f"{sample.name} has {listed(extra)}, which the contract doesn't have", fix, sample.name)

    def value(self, metric: Metric, label: str, value: str, values: Values, name: str) -> None:
        """Report a value that a label can't have."""
        close = nearest(value, sorted(values.known or ()))
        end = f" or a name that ends with {values.ending}" if values.ending else ""
        fix = f"write {close!r}{end}" if close else f"record it with llm_common, which has a word for everything{end}"
        self.say("MC504", f"{label} of {metric.name} is {value!r}, which the contract doesn't have", fix, name)

    def histograms(self, samples: Iterable[Sample]) -> None:
        """Report histograms whose buckets lack bounds or don't add up."""
        buckets: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = defaultdict(list)
        counts: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for sample in samples:
            metric, part = self._known.get(sample.name, (None, ""))
            if metric and part == "bucket":
                bound = number(sample.labels.get("le", ""))
                if bound is None:
                    message = f"{metric.name} has a bucket whose bound is {sample.labels.get('le')!r}"
                    self.say("MC508", message, "the label le is a number or +Inf", sample.name)
                else:
                    buckets[metric.name, rest(sample)].append((bound, sample.value))
            elif metric and part == "count":
                counts[metric.name, rest(sample)] = sample.value
        for key in buckets.keys() | counts.keys():
            self.histogram(key[0], sorted(buckets.get(key, [])), counts.get(key))

    def histogram(self, name: str, buckets: list[tuple[float, float]], count: float | None) -> None:
        """Report what is wrong with one histogram."""
        bounds = [bound for bound, _ in buckets]
        lacking = [f"{bound:g}" for bound in CONTRACT_BOUNDS.get(name, ()) if bound not in bounds]
        if buckets and lacking:
            fix = "add them: without them quantiles over several applications are wrong"
            self.say("MC507", f"the buckets of {name} lack the bounds {', '.join(lacking)}", fix, f"{name}_bucket")
        values = [value for _, value in buckets]
        wrong = (
            "has no bucket +Inf"
            if math.inf not in bounds
            else "has buckets that aren't cumulative"
            if values != sorted(values)
            else "has a bucket +Inf that isn't its count"
            if values[-1] != count
            else ""
        )
        if wrong:
            fix = "let a client library write it: each bucket counts what is in the smaller ones too"
            self.say("MC508", f"{name} {wrong}", fix, f"{name}_bucket")


GROWING = {"counter": {"_total", ""}, "histogram": {"_bucket", "_sum", "_count"}, "summary": {"_sum", "_count"}}
UNTOLD = frozenset({"env", "app", "instance", "job"})
"""Labels of which one page says nothing: another instance has other values."""


def with_pages(known: Vocabulary, families: Iterable[Family], metrics: Iterable[Metric]) -> Vocabulary:
    """Return what queries may name where an application's own pages are at hand: what these show exists too."""
    ours = {series_name(metric, part) for metric in metrics for part in PARTS[metric.kind]}
    shown: dict[str, dict[str, set[str]]] = {}
    grows: dict[str, bool | None] = {}
    without_samples: dict[str, Series] = {}
    for family in families:
        kind = family.type
        if not family.samples:
            for ending in GROWING.get(kind, {""}) | {""}:
                without_samples[family.name + ending] = Series(None, None)
        for sample in family.samples:
            labels = shown.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
            ending = sample.name.removeprefix(family.name)
            grows[sample.name] = None if kind == "unknown" else ending in GROWING.get(kind, ())
    series = {**without_samples, **known.series}
    for name, labels in shown.items():
        values = {label: seen_values(label, frozenset(found)) for label, found in labels.items()}
        if name not in ours:
            series[name] = Series(values, grows[name])
        else:
            series[name] = replace(known.series[name], labels=extended(known.series[name].labels or {}, values))
    return replace(known, series=series, complete=True)


def seen_values(label: str, found: frozenset[str]) -> Values:
    """Return what a page says of the values of a label."""
    if label == "le":
        return Values(found, numbers=True)
    return ANY if label in UNTOLD else Values(seen=found)


def extended(before: Mapping[str, Values], shown: Mapping[str, Values]) -> Mapping[str, Values]:
    """Return the values that labels of ours have: those of the vocabulary, and what the page shows beside."""
    found = dict(before)
    for label, values in before.items():
        page = shown.get(label, ANY)
        if values.numbers:
            found[label] = page if page.numbers else values
        elif values.known is not None and page.seen:
            found[label] = replace(values, known=values.known | page.seen)
        elif page.seen:
            found[label] = page
    return found
