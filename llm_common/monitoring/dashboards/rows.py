"""The rows that both dashboards have: what is counted and timed is looked at in the same way, whatever it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_common.catalog import Metric
from llm_common.contract import Status
from llm_common.monitoring.dashboards.asking import RANGE, WEEK, Asking
from llm_common.monitoring.dashboards.panels import (
    COUNT,
    GREEN,
    GREY,
    RED,
    SECONDS,
    SHARE,
    YELLOW,
    Column,
    Link,
    Panel,
    Query,
    durations,
    graph,
    number,
    ranking,
)
from llm_common.monitoring.promql import Match, existing, top

LONGEST = 15
"""How many lines a graph and how many rows a table has."""
MANY = f"The {LONGEST} with the highest values are shown."
FIRES = "The dashed line is the threshold of an alert."
NOW, BEFORE = "now", "a week before"
COLORS = {Status.OK.value: GREEN, Status.ERROR.value: RED, Status.CANCELLED.value: YELLOW, BEFORE: GREY}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a dashboard is about: the metrics that count and time it, and the words for it."""

    count: Metric
    duration: Metric
    noun: str
    """What several of them are called."""
    rate_unit: str
    error: Match
    """The statuses of those that failed."""
    error_means: str
    cancelled: Match
    """The statuses of those that nobody wanted any more."""
    cancelled_means: str
    colors: Mapping[str, str] = field(default_factory=dict)
    """Colours for statuses beside those of actions, by patterns."""


class Limits(NamedTuple):
    """From where on alerts fire, if they do."""

    error: float | None = None
    cancelled: float | None = None
    seconds: float | None = None


def overview(asking: Asking, subject: Subject) -> tuple[Panel, ...]:
    """Return what is selected, in a few numbers and lines."""
    many = f"the selected {subject.noun}"
    error = asking.share(subject.count, status=subject.error)
    cancelled = asking.share(subject.count, status=subject.cancelled)
    p95 = asking.quantile(0.95, subject.duration)
    errors, gone = f"Error: {subject.error_means}.", f"Cancelled: {subject.cancelled_means}."
    return (
        number("Rate", f"How many of {many} ended per second.", subject.rate_unit, asking.rate(subject.count)),
        number("Error share", f"Share of {many} that failed. {errors}", SHARE, error),
        number("Cancelled share", f"Share of {many} that were cancelled. {gone}", SHARE, cancelled),
        number("p95", f"Nineteen of twenty of {many} took no longer than this.", SECONDS, p95),
        graph(
            "Rate by status",
            f"How many of {many} ended per second, and how.",
            subject.rate_unit,
            Query(asking.rate(subject.count, by=["status"]), "{{status}}"),
            stacked=True,
            colors={**subject.colors, **COLORS},
        ),
        graph(
            "Error and cancelled share",
            f"Shares of {many}. {errors} {gone}",
            SHARE,
            Query(error, Status.ERROR.value),
            Query(cancelled, Status.CANCELLED.value),
            colors=COLORS,
        ),
        graph(
            "Duration",
            f"Half, 95 % and 99 % of {many} took no longer than this, estimated from the histogram.",
            SECONDS,
            *asking.quantiles(subject.duration),
        ),
    )


def rankings(asking: Asking, subject: Subject, titles: Mapping[str, str], links: Iterable[Link]) -> tuple[Panel, ...]:
    """Return the slowest and the most failing of the time that is selected, one for each combination of labels.

    ``titles`` has the labels and what their columns are called; from the first, ``links`` lead to other views.
    """
    by, leading = tuple(titles), tuple(links)
    slowest = top(LONGEST, f"{asking.quantile(0.95, subject.duration, by=by, over=RANGE)} > 0")
    most_failing = top(LONGEST, f"{asking.increase(subject.count, by=by, status=subject.error)} > 0")
    total = asking.increase(subject.count, by=by)
    share = asking.share_in_range(subject.count, by, status=subject.error)
    name = next(iter(titles.values()))
    follow = f"A click on the column {name} leads to it alone."
    return (
        ranking(
            "Slowest",
            f"The {LONGEST} with the highest 95th percentile in the time that is selected. {follow}",
            titles,
            Column("p95", SECONDS, slowest),
            Column(subject.noun.capitalize(), COUNT, existing(total, slowest, on=by)),
            links=leading,
        ),
        ranking(
            "Most failing",
            f"The {LONGEST} that failed most often in the time that is selected. {follow}",
            titles,
            Column("Errors", COUNT, most_failing),
            Column("Error share", SHARE, existing(share, most_failing, on=by)),
            links=leading,
        ),
    )


def details(
    asking: Asking, subject: Subject, noun: str, by: tuple[str, ...], bounds: tuple[float, ...], limits: Limits
) -> tuple[Panel, ...]:
    """Return what is shown of things called ``noun``: of each combination of the labels ``by``, and of all.

    ``bounds`` are durations that somebody waits for, in seconds, of the histogram's bounds.
    """

    def each(expression: str) -> Query:
        return Query(top(LONGEST, expression), legend_of(by))

    def described(text: str, limit: float | None) -> str:
        return " ".join([text, MANY, *([] if limit is None else [FIRES])])

    return (
        graph(
            "Rate",
            f"How many {noun} ended per second. {MANY}",
            subject.rate_unit,
            each(asking.rate(subject.count, by=by)),
        ),
        graph(
            "Error share",
            described(f"Share of the {noun} that failed: {subject.error_means}.", limits.error),
            SHARE,
            each(asking.share(subject.count, by=by, status=subject.error)),
            limit=limits.error,
        ),
        graph(
            "Cancelled share",
            described(f"Share of the {noun} that were cancelled: {subject.cancelled_means}.", limits.cancelled),
            SHARE,
            each(asking.share(subject.count, by=by, status=subject.cancelled)),
            limit=limits.cancelled,
        ),
        graph(
            "Duration",
            f"Half, 95 % and 99 % of all selected {noun} took no longer than this, estimated from the histogram.",
            SECONDS,
            *asking.quantiles(subject.duration),
        ),
        graph(
            "p95 of each",
            described(f"Nineteen of twenty {noun} took no longer than this.", limits.seconds),
            SECONDS,
            each(f"{asking.quantile(0.95, subject.duration, by=by)} > 0"),  # which the idle ones are not: they are NaN
            limit=limits.seconds,
        ),
        durations(
            "Durations",
            f"How the durations of all selected {noun} are spread: the stronger the colour, the more ended so.",
            asking.rate(subject.duration, "bucket", by=["le"]),
        ),
        graph(
            "Share that ended in time",
            f"Share of all selected {noun} that took no longer than so many seconds, whatever their status. It needs "
            "a histogram with these bounds, as it has them by default.",
            SHARE,
            *asking.within(subject.duration, bounds),
            span=12,
        ),
    )


def comparison(asking: Asking, subject: Subject) -> tuple[Panel, ...]:
    """Return what is selected beside what it was a week before."""
    many, when = f"the selected {subject.noun}", "now and at the same time last week"

    def compared(title: str, description: str, unit: str, now: str, before: str) -> Panel:
        lines = Query(now, NOW), Query(before, BEFORE)
        return graph(title, f"{description}, {when}.", unit, *lines, colors=COLORS)

    def errors(offset: str) -> str:
        return asking.share(subject.count, offset, status=subject.error)

    def p95(offset: str) -> str:
        return asking.quantile(0.95, subject.duration, offset=offset)

    before = asking.rate(subject.count, offset=WEEK)
    return (
        compared("Rate", f"How many of {many} ended per second", subject.rate_unit, asking.rate(subject.count), before),
        compared("Error share", f"Share of {many} that failed", SHARE, errors(""), errors(WEEK)),
        compared("p95", f"What nineteen of twenty of {many} took no longer than", SECONDS, p95(""), p95(WEEK)),
    )


def legend_of(labels: Iterable[str]) -> str:
    """Return a legend of the labels' values, the last of them first: what is meant, then whose it is."""
    return " ".join(f"{{{{{label}}}}}" for label in reversed(tuple(labels)))
