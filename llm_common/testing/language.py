"""The documented metric language over what was recorded: which values a metric's name and labels stand for."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llm_common.backends.memory import EndedRecord, HttpRecord, Record, SizedRecord
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    CATALOGUE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    OVERFLOW,
    Buckets,
    Kind,
    Metric,
)
from llm_common.contract import HttpSeries, Status
from llm_common.http_labels import METHODS, OTHER_METHOD, method_label, status_label
from llm_common.settings import clean_label

HTTP = "genapp_http_"
"""How the names of the HTTP metrics begin."""

SUFFIXES = ("_count", "_sum", "_bucket")
"""What follows a histogram's name where one of its values is meant."""


def value(metric: str, labels: Mapping[str, str], records: Iterable[Record], buckets: Buckets) -> float:
    """Return the value of ``metric``, added up over all series that have these labels; 0 where nothing was recorded.

    Raises :class:`ValueError` for a metric or label that the catalogue doesn't have and :class:`TypeError` for a label
    that is no string.
    """
    family, suffix = _family(metric)
    _check_labels(family, suffix, labels)
    wanted = {label: clean_label(text(one, f"the label {label}")) for label, one in labels.items()}
    if family.name.startswith(HTTP):
        check_http_labels(wanted)
    if "status" in wanted and family is ACTION_COUNT:
        action_status(wanted["status"])
    bound = _bound(family, wanted.pop("le"), buckets) if suffix == "_bucket" else None
    values = [
        amount
        for series, amount in measurements(family, records)
        if all(series[label] == one for label, one in wanted.items())
    ]
    if bound is not None:
        return float(sum(amount <= bound for amount in values))
    return float(len(values) if suffix == "_count" else sum(values))


def text(one: object, what: str) -> str:
    """Return ``one`` if it is a string; raise :class:`TypeError` that names it otherwise."""
    if not isinstance(one, str):
        raise TypeError(f"{what} must be a string, not {one!r:.100}")
    return one


def check_http_labels(labels: Mapping[str, str]) -> None:
    """Raise :class:`ValueError` for a value that no HTTP series can have, so that a slip isn't taken for a zero."""
    status, method = labels.get("status", OVERFLOW), labels.get("method", OVERFLOW)
    if status != OVERFLOW and status_label(status) != status:
        raise ValueError(f"{status!r} is no HTTP status; accepted: three digits, error, timeout or cancelled")
    if method != OVERFLOW and method_label(method) != method:
        raise ValueError(f"{method!r} is no method; accepted: {', '.join(sorted(METHODS))} or {OTHER_METHOD}")
    if labels.get("direction", "in") not in {"in", "out"}:
        raise ValueError(f"{labels['direction']!r} is no direction; accepted: in or out")
    resource = labels.get("resource", "")
    if resource != "/" and resource != resource.strip("/"):
        raise ValueError(f"a resource has no outer slashes; write {resource.strip('/')!r} for {resource!r}")


def action_status(status: str) -> Status:
    """Return an action's status; raise :class:`ValueError` where there is none such."""
    if status not in set(Status):
        raise ValueError(f"{status!r} is no status; accepted: {', '.join(Status)}")
    return Status(status)


def measurements(family: Metric, records: Iterable[Record]) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield the labels and the amount of everything that ``family`` counts, adds up or observes."""
    for record in records:
        common = {"env": record.env, "app": record.app}
        if isinstance(record, SizedRecord):
            if family is ACTION_SIZE:
                yield {"name": record.name, **common}, record.amount
        elif isinstance(record, EndedRecord):
            event = record.event
            if family is ACTION_COUNT:
                yield {"name": event.name, "status": str(event.status), **common}, 1
            elif family is ACTION_DURATION:
                yield {"name": event.name, **common}, event.seconds
        elif isinstance(record, HttpRecord):
            yield from _http_measurements(family, record, common)
        elif family is record.metric:
            yield dict(zip(family.labels, record.values, strict=True)), record.amount


def _http_measurements(
    family: Metric, record: HttpRecord, common: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, str], float]]:
    exchange = record.exchange
    labels = {**{label: getattr(exchange, label) for label in HttpSeries._fields}, **common}
    if family is HTTP_REQUESTS:
        yield labels, 1
    elif family is HTTP_REQUEST_DURATION:
        yield labels, exchange.seconds
    elif family is HTTP_REQUEST_SIZE:
        yield {**labels, "direction": "in"}, exchange.request_bytes
        yield {**labels, "direction": "out"}, exchange.response_bytes


def _bound(family: Metric, le: str, buckets: Buckets) -> float:
    bounds = [*buckets.of(family), float("inf")]
    try:
        bound = float(le)
    except ValueError:
        bound = -1.0
    if bound not in bounds:
        raise ValueError(f"no bucket has le={le!r}; the bounds are {', '.join(f'{one:g}' for one in bounds)}")
    return bound


def _family(metric: str) -> tuple[Metric, str]:
    known: list[str] = []
    for family in CATALOGUE:
        if family.kind is not Kind.HISTOGRAM:
            if metric == family.name:
                return family, ""
            known.append(family.name)
            continue
        choices = [family.name + suffix for suffix in SUFFIXES]
        if metric in choices:
            return family, metric.removeprefix(family.name)
        if metric == family.name:
            raise ValueError(f"{metric} is a histogram, which has no single value; ask for one of {', '.join(choices)}")
        known += choices
    close = difflib.get_close_matches(metric, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown metric {metric!r}{hint} (known: {', '.join(known)})")


def _check_labels(family: Metric, suffix: str, labels: Mapping[str, str]) -> None:
    accepted: Sequence[str] = (*family.labels, "le") if suffix == "_bucket" else family.labels
    for label in labels:
        if label not in accepted:
            raise ValueError(f"{family.name}{suffix} has no label {label!r}; its labels: {', '.join(accepted)}")
    if suffix == "_bucket" and "le" not in labels:
        raise ValueError(f"{family.name}_bucket needs the label le, the upper bound of a bucket, such as le='0.1'")
