"""The dashboard *HTTP requests*: what the applications serve and what they send, how it is answered and how fast."""

from typing import NamedTuple

from llm_common.catalog import HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE, HTTP_REQUESTS
from llm_common.http_labels import CANCELLED, CLIENT_GONE, ERROR, SERVER, TIMEOUT
from llm_common.monitoring.dashboards.asking import BEFORE_COLORS, LONGEST, RANGE, WEEK, Asking, compared
from llm_common.monitoring.dashboards.layout import (
    ACTIONS_UID,
    HTTP_UID,
    Row,
    Variable,
    address,
    chosen,
    dashboard_text,
)
from llm_common.monitoring.dashboards.panels import (
    BYTES,
    BYTES_RATE,
    COUNT,
    DATASOURCE_VARIABLE,
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
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import Match, existing, like, other_than, top

TITLE = "HTTP requests"
REQUEST_RATE = "reqps"
SELECTED = ("env", "app", "app_type", "resource")
FAILED = like(f"5..|{ERROR}|{TIMEOUT}")
"""The statuses of requests that failed: the server's fault, or no answer at all."""
GONE = like(f"{CLIENT_GONE}|{CANCELLED}")
"""The statuses of requests whose answer nobody waited for."""
SHARE_COLORS = {"failed": RED, "cancelled": YELLOW}

VARIABLES = (
    Variable("env", "Environment", "The environments to look at."),
    Variable("app", "Application", "The applications to look at.", ("env",)),
    Variable(
        "app_type",
        "Type",
        f"`{SERVER}` is what an application serves; the others are what it sends requests to.",
        ("env", "app"),
    ),
    Variable("resource", "Resource", "The routes and paths to look at.", ("env", "app", "app_type")),
)


class Side(NamedTuple):
    """Requests as one side of the wire sees them; each has a row of its own."""

    title: str
    noun: str
    app_type: Match
    each: tuple[str, ...]
    """What tells the lines of a graph apart."""
    bounds: tuple[float, ...]
    """Durations that somebody waits for, in seconds, of the histogram's bounds."""
    error_limit: float
    seconds_limit: float | None


def sides(options: Options) -> tuple[Side, ...]:
    """Return the requests that are served, and those that are sent."""
    limits = options.thresholds
    served, sent = Match("=", SERVER), other_than(SERVER)
    return (
        Side(
            *("Served requests, by resource", "served requests", served, ("env", "app", "resource")),
            *((0.1, 0.5, 1, 3), limits.http_error_share, limits.http_seconds),
        ),
        Side(
            *("Sent requests, by what they are sent to", "sent requests", sent, ("env", "app", "app_type")),
            *((0.5, 3, 10, 30), limits.dependency_failed_share, None),
        ),
    )


def http_dashboard(options: Options) -> str:
    """Return the dashboard as JSON."""
    asking = Asking(options.recording_rules, {label: chosen(label) for label in SELECTED})
    description = "HTTP requests that the applications serve, and those that they send to what they depend on."
    rows = [
        Row("Overview", overview(asking), collapsed=False),
        Row("The slowest, and those that fail most", rankings(asking), collapsed=False),
        *(Row(side.title, side_panels(asking, side)) for side in sides(options)),
        Row("Sizes", sizes(asking)),
        Row("Compared with the same time last week", comparison(asking)),
    ]
    variables = [variable.build(HTTP_REQUESTS, options.recording_rules) for variable in VARIABLES]
    return dashboard_text(HTTP_UID, TITLE, description, variables, rows, (ACTIONS_UID, "Actions"))


def overview(asking: Asking) -> tuple[Panel, ...]:
    """Return what is selected, in a few numbers and lines."""
    failed, cancelled = asking.share(HTTP_REQUESTS, status=FAILED), asking.share(HTTP_REQUESTS, status=GONE)
    p95 = asking.quantile(0.95, HTTP_REQUEST_DURATION)
    return (
        number(
            "Requests", "Selected requests that ended, per second.", REQUEST_RATE, Query(asking.rate(HTTP_REQUESTS), "")
        ),
        number(
            "Failed share",
            "Share of the selected requests that ended with a status of 500 or more, a time-out or no answer at all.",
            SHARE,
            Query(failed, ""),
        ),
        number(
            "Cancelled share",
            "Share of the selected requests whose answer nobody waited for: 499 where they are served.",
            SHARE,
            Query(cancelled, ""),
        ),
        number("p95", "Nineteen of twenty selected requests took no longer than this.", SECONDS, Query(p95, "")),
        graph(
            "Requests by status",
            "How many selected requests ended per second, and how: by the code of the answer, or why there was none.",
            REQUEST_RATE,
            Query(asking.rate(HTTP_REQUESTS, by=["status"]), "{{status}}"),
            stacked=True,
        ),
        graph(
            "Failed and cancelled share",
            "Shares of the selected requests. Failed: a status of 500 or more, a time-out, no answer at all. "
            "Cancelled: nobody waited for the answer.",
            SHARE,
            Query(failed, "failed"),
            Query(cancelled, "cancelled"),
            colors=SHARE_COLORS,
        ),
        graph(
            "Duration",
            "Half, 95 % and 99 % of the selected requests took no longer than this until the last byte of the answer, "
            "estimated from the histogram.",
            SECONDS,
            *asking.quantiles(HTTP_REQUEST_DURATION),
        ),
    )


def rankings(asking: Asking) -> tuple[Panel, ...]:
    """Return the slowest and the most failing resources of the time that is selected."""
    titles = {"resource": "Resource", "app_type": "Type", "app": "Application", "env": "Environment"}
    row = {"env": "env", "app": "app"}
    this = {**row, "app_type": "app_type", "resource": "resource"}
    links = (
        Link("Only this resource", address(HTTP_UID, DATASOURCE_VARIABLE, **this)),
        Link("Actions of the application", address(ACTIONS_UID, DATASOURCE_VARIABLE, **row)),
    )
    slowest = top(LONGEST, f"{asking.quantile(0.95, HTTP_REQUEST_DURATION, by=SELECTED, over=RANGE)} > 0")
    failed = top(LONGEST, f"{asking.increase(HTTP_REQUESTS, by=SELECTED, status=FAILED)} > 0")
    requests = asking.increase(HTTP_REQUESTS, by=SELECTED)
    failed_share = asking.share_in_range(HTTP_REQUESTS, SELECTED, status=FAILED)
    return (
        ranking(
            "Slowest resources",
            f"The {LONGEST} resources with the highest 95th percentile over the time that is selected. "
            "The resource leads to what is known of it alone.",
            titles,
            [Column("p95", SECONDS, slowest), Column("Requests", COUNT, existing(requests, slowest, on=SELECTED))],
            links,
        ),
        ranking(
            "Most failing resources",
            f"The {LONGEST} resources with the most failed requests over the time that is selected. "
            "The resource leads to what is known of it alone.",
            titles,
            [
                Column("Failed", COUNT, failed),
                Column("Failed share", SHARE, existing(failed_share, failed, on=SELECTED)),
            ],
            links,
        ),
    )


def side_panels(asking: Asking, side: Side) -> tuple[Panel, ...]:
    """Return what is shown of the requests on one side of the wire."""
    asking = asking.only(app_type=(side.app_type, chosen("app_type")))
    noun = side.noun
    many = f"The lines with the highest values, {LONGEST} at a time."
    legend = f"{{{{{side.each[-1]}}}}} {{{{app}}}} {{{{env}}}}"

    def each(expression: str) -> Query:
        return Query(top(LONGEST, expression), legend)

    return (
        graph(
            "Rate",
            f"How many {noun} ended per second. {many}",
            REQUEST_RATE,
            each(asking.rate(HTTP_REQUESTS, by=side.each)),
        ),
        graph(
            "Failed share",
            f"Share of the {noun} that failed: a status of 500 or more, a time-out, no answer at all. {many} "
            "The dashed line is where an alert fires for an application's requests together.",
            SHARE,
            each(asking.share(HTTP_REQUESTS, by=side.each, status=FAILED)),
            limit=side.error_limit,
        ),
        graph(
            "Cancelled share",
            f"Share of the {noun} whose answer nobody waited for. {many}",
            SHARE,
            each(asking.share(HTTP_REQUESTS, by=side.each, status=GONE)),
        ),
        graph(
            "Duration",
            f"Half, 95 % and 99 % of all selected {noun} took no longer than this, estimated from the histogram.",
            SECONDS,
            *asking.quantiles(HTTP_REQUEST_DURATION),
        ),
        graph(
            "p95 of each",
            f"Nineteen of twenty took no longer than this. {many}"
            + ("" if side.seconds_limit is None else " The dashed line is where an alert fires."),
            SECONDS,
            each(asking.quantile(0.95, HTTP_REQUEST_DURATION, by=side.each)),
            limit=side.seconds_limit,
        ),
        durations(
            "Durations",
            f"How the durations of all selected {noun} are spread: the darker, the more of them ended so.",
            asking.rate(HTTP_REQUEST_DURATION, "bucket", by=["le"]),
        ),
        graph(
            "Share answered in time",
            f"Share of all selected {noun} that took no longer than the bounds, whatever their status. "
            "Shown where the histogram has these bounds, as it has by default.",
            SHARE,
            *asking.within(HTTP_REQUEST_DURATION, side.bounds),
            span=24,
        ),
    )


def sizes(asking: Asking) -> tuple[Panel, ...]:
    """Return how much goes over the wire."""
    legend = "{{direction}} {{resource}} {{app}} {{env}}"
    by = ("env", "app", "resource", "direction")
    in_and_out = "`in` are bodies of requests, `out` bodies of answers, on both sides of the wire."
    return (
        graph(
            "Bytes by direction",
            f"Bytes of bodies per second. {in_and_out}",
            BYTES_RATE,
            Query(asking.rate(HTTP_REQUEST_SIZE, "sum", by=["direction"]), "{{direction}}"),
        ),
        graph(
            "Bytes by resource",
            f"Bytes of bodies per second, of the {LONGEST} with most at a time. {in_and_out}",
            BYTES_RATE,
            Query(top(LONGEST, asking.rate(HTTP_REQUEST_SIZE, "sum", by=by)), legend),
        ),
        graph(
            "Mean size of a body",
            f"Bytes of a body on average. {in_and_out}",
            BYTES,
            Query(asking.mean(HTTP_REQUEST_SIZE, by=["direction"]), "{{direction}}"),
        ),
    )


def comparison(asking: Asking) -> tuple[Panel, ...]:
    """Return what is selected beside what it was a week before."""
    return (
        graph(
            "Rate",
            "How many selected requests ended per second, now and at the same time last week.",
            REQUEST_RATE,
            *compared(asking.rate(HTTP_REQUESTS), asking.rate(HTTP_REQUESTS, offset=WEEK)),
            colors=BEFORE_COLORS,
        ),
        graph(
            "Failed share",
            "Share of the selected requests that failed, now and at the same time last week.",
            SHARE,
            *compared(*(asking.share(HTTP_REQUESTS, offset, status=FAILED) for offset in ("", WEEK))),
            colors=BEFORE_COLORS,
        ),
        graph(
            "p95",
            "Nineteen of twenty selected requests took no longer than this, now and at the same time last week.",
            SECONDS,
            *compared(*(asking.quantile(0.95, HTTP_REQUEST_DURATION, offset=offset) for offset in ("", WEEK))),
            colors=BEFORE_COLORS,
        ),
    )
