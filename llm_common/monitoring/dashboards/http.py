"""The dashboard *HTTP requests*: what the applications serve and what they send, how it is answered and how fast."""

from typing import NamedTuple

from llm_common.catalog import HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE, HTTP_REQUESTS
from llm_common.http_labels import CANCELLED, CLIENT_GONE, ERROR, SERVER, TIMEOUT
from llm_common.monitoring.dashboards.asking import Asking
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
    BLUE,
    BYTES,
    BYTES_RATE,
    DATASOURCE_VARIABLE,
    GREEN,
    RED,
    YELLOW,
    Link,
    Panel,
    Query,
    graph,
)
from llm_common.monitoring.dashboards.rows import (
    LONGEST,
    MANY,
    Limits,
    Subject,
    comparison,
    details,
    legend_of,
    overview,
    rankings,
)
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import Match, equal, like, other_than, top

TITLE = "HTTP requests"
REQUESTS = Subject(
    count=HTTP_REQUESTS,
    duration=HTTP_REQUEST_DURATION,
    noun="requests",
    rate_unit="reqps",
    error=like(f"5..|{ERROR}|{TIMEOUT}"),
    error_means="a status of 500 or more, a time-out, or no answer at all",
    cancelled=like(f"{CLIENT_GONE}|{CANCELLED}"),
    cancelled_means="nobody waited for the answer",
    colors={"/^2..$/": GREEN, "/^3..$/": BLUE, "/^4..$/": YELLOW, "/^5..$/": RED},
)
SELECTED = ("env", "app", "app_type", "resource")
DIRECTIONS = "`in` are the bodies of requests, `out` those of responses, on both sides of the wire."
TITLES = {"resource": "Resource", "app_type": "Type", "app": "Application", "env": "Environment"}

VARIABLES = (
    Variable("env", "Environment", "The environments to look at."),
    Variable("app", "Application", "The applications to look at.", ("env",)),
    Variable(
        "app_type",
        "Type",
        f"`{SERVER}` is what an application serves; all others are what it sends requests to.",
        ("env", "app"),
    ),
    Variable("resource", "Resource", "The routes and paths to look at.", ("env", "app", "app_type")),
)
ROW = {"env": "env", "app": "app"}
LINKS = (
    Link("Only this resource", address(HTTP_UID, DATASOURCE_VARIABLE, **ROW, app_type="app_type", resource="resource")),
    Link("Actions of the application", address(ACTIONS_UID, DATASOURCE_VARIABLE, **ROW)),
)


class Side(NamedTuple):
    """Requests as one side of the wire sees them, which have a row of their own."""

    title: str
    noun: str
    app_type: Match
    each: tuple[str, ...]
    """What tells the lines of a graph apart."""
    bounds: tuple[float, ...]
    """Durations that somebody waits for, in seconds, of the histogram's bounds."""
    limits: Limits


def sides(options: Options) -> tuple[Side, ...]:
    """Return the requests that are served, and those that are sent."""
    given = options.thresholds
    return (
        Side(
            *("Served requests, by resource", "served requests", equal(SERVER), ("env", "app", "resource")),
            (0.1, 0.5, 1, 3),
            Limits(given.http_error_share, seconds=given.http_seconds),
        ),
        Side(
            *("Sent requests, by receiver", "sent requests", other_than(SERVER), ("env", "app", "app_type")),
            (0.5, 3, 10, 30),
            Limits(given.dependency_failed_share),
        ),
    )


def http_dashboard(options: Options) -> str:
    """Return the dashboard as JSON."""
    asking = Asking(options.recording_rules, {label: chosen(label) for label in SELECTED})
    rows = [
        Row("Overview", overview(asking, REQUESTS), collapsed=False),
        Row("The slowest, and those that fail most", rankings(asking, REQUESTS, TITLES, LINKS), collapsed=False),
        *(Row(side.title, side_panels(asking, side)) for side in sides(options)),
        Row("Sizes", sizes(asking)),
        Row("Compared with the same time last week", comparison(asking, REQUESTS)),
    ]
    return dashboard_text(
        HTTP_UID,
        TITLE,
        "HTTP requests that the applications serve, and those that they send to what they depend on.",
        [variable.build(HTTP_REQUESTS, options.recording_rules) for variable in VARIABLES],
        rows,
        (ACTIONS_UID, "Actions"),
    )


def side_panels(asking: Asking, side: Side) -> tuple[Panel, ...]:
    """Return what is shown of the requests on one side of the wire."""
    asking = asking.only(app_type=(side.app_type, chosen("app_type")))
    panels = details(asking, REQUESTS, side.noun, side.each, side.bounds, side.limits)
    return (*panels, bytes_by_direction(asking))


def bytes_by_direction(asking: Asking) -> Panel:
    """Return how much goes over the wire, in each direction."""
    return graph(
        "Bytes by direction",
        f"Bytes of bodies per second. {DIRECTIONS}",
        BYTES_RATE,
        Query(asking.rate(HTTP_REQUEST_SIZE, "sum", by=["direction"]), "{{direction}}"),
        span=12,
    )


def sizes(asking: Asking) -> tuple[Panel, ...]:
    """Return how much goes over the wire, and in pieces of what size."""
    by = ("env", "app", "resource", "direction")
    return (
        graph(
            "Bytes by resource",
            f"Bytes of bodies per second. {DIRECTIONS} {MANY}",
            BYTES_RATE,
            Query(top(LONGEST, asking.rate(HTTP_REQUEST_SIZE, "sum", by=by)), legend_of(by)),
            span=12,
        ),
        graph(
            "Mean size of a body",
            f"Bytes of a body on average. {DIRECTIONS}",
            BYTES,
            Query(asking.mean(HTTP_REQUEST_SIZE, by=["direction"]), "{{direction}}"),
            span=12,
        ),
    )
