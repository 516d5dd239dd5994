"""Every metric that the package emits, as frozen data.

Backends, assertions, documentation, dashboards and checks all derive from this one list, so they can't disagree. The
names and label sets are a contract with dashboards in production: they never change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

ACTION_DURATION_BUCKETS = (
    *(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 3600.0, 43200.0, 86400.0),
)
"""Default bounds for the duration of actions, in seconds: from a menu click to a job that runs for a day."""

HTTP_DURATION_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 3600.0),
)
"""Default bounds for the duration of HTTP exchanges, in seconds, with resolution below 100 ms."""

HTTP_SIZE_BUCKETS = (1e2, 1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 5e7, 1e8, 5e8, 1e9)
"""Default bounds for the size of HTTP bodies, in bytes."""

FIRST_ITEM_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
    *(7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
"""Default bounds for the time to the first streamed item, in seconds: what somebody notices who waits for an answer."""

MAX_ACTION_NAMES = 2_000
"""How many names of actions have series of their own, by default."""

MAX_HTTP_SERIES = 10_000
"""How many combinations of method, status, resource and app_type have series of their own, by default."""

OVERFLOW = "{other}"
"""What stands in the labels of the one series that takes everything past such a limit."""


class Buckets(NamedTuple):
    """The upper bounds of the histograms' buckets, ascending, without the implied ``+Inf``."""

    action_duration: tuple[float, ...] = ACTION_DURATION_BUCKETS
    """In seconds."""
    http_duration: tuple[float, ...] = HTTP_DURATION_BUCKETS
    """In seconds."""
    http_size: tuple[float, ...] = HTTP_SIZE_BUCKETS
    """In bytes."""
    first_item: tuple[float, ...] = FIRST_ITEM_BUCKETS
    """In seconds."""

    def of(self, metric: "Metric") -> tuple[float, ...]:
        """Return the bounds of a histogram of the catalogue; none for other metrics."""
        return next((bounds for one, bounds in zip(HISTOGRAMS, self, strict=True) if one is metric), ())

    def change(self, after: "Buckets") -> str:
        """Return in words which bounds can't become those of ``after``, which are others; the start of an error."""
        name = next(name for name in self._fields if getattr(self, name) != getattr(after, name))
        return f"{name}_buckets can't change from {getattr(self, name)} to {getattr(after, name)}"


class Kind(StrEnum):
    """The type of a metric, in the words of the exposition formats."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family: what a scrape shows for it, whatever the backend."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    unit: str
    """The unit of its values: ``seconds``, ``bytes``, or what is counted."""
    buckets: tuple[float, ...] = ()
    """Default upper bounds of a histogram's buckets, ascending, in ``unit``; ``+Inf`` is implied."""

    @property
    def family(self) -> str:
        """The name without a counter's ``_total``, as client libraries want it."""
        return self.name.removesuffix("_total")


HTTP_REQUESTS = Metric(
    name="genapp_http_requests_total",
    kind=Kind.COUNTER,
    labels=("method", "status", "resource", "app_type", "env", "app"),
    help="HTTP requests, served and sent.",
    unit="requests",
)
HTTP_REQUEST_DURATION = Metric(
    name="genapp_http_request_duration_sec",
    kind=Kind.HISTOGRAM,
    labels=("method", "status", "resource", "app_type", "env", "app"),
    help="Duration of HTTP requests until the last byte of the response, in seconds.",
    unit="seconds",
    buckets=HTTP_DURATION_BUCKETS,
)
HTTP_REQUEST_SIZE = Metric(
    name="genapp_http_request_size_bytes",
    kind=Kind.HISTOGRAM,
    labels=("resource", "status", "method", "direction", "app_type", "env", "app"),
    help="Size of HTTP request bodies (direction in) and response bodies (direction out), in bytes.",
    unit="bytes",
    buckets=HTTP_SIZE_BUCKETS,
)
ACTION_COUNT = Metric(
    name="genapp_action_count_total",
    kind=Kind.COUNTER,
    labels=("name", "status", "env", "app"),
    help="Actions that ended, by status.",
    unit="actions",
)
ACTION_DURATION = Metric(
    name="genapp_action_duration_sec",
    kind=Kind.HISTOGRAM,
    labels=("name", "env", "app"),
    help="Duration of actions, in seconds.",
    unit="seconds",
    buckets=ACTION_DURATION_BUCKETS,
)
ACTION_SIZE = Metric(
    name="genapp_action_size_total",
    kind=Kind.COUNTER,
    labels=("name", "env", "app"),
    help="Size of the data that actions processed, in units chosen by the caller.",
    unit="units chosen by the caller",
)

METRICS = (HTTP_REQUESTS, HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE, ACTION_COUNT, ACTION_DURATION, ACTION_SIZE)
"""The whole contract, in the order in which a scrape shows it."""

LLM_TOKENS = Metric(
    name="genapp_llm_tokens_total",
    kind=Kind.COUNTER,
    labels=("name", "token_type", "model", "env", "app"),
    help="Tokens that LLM calls took (token_type input) and gave (token_type output).",
    unit="tokens",
)
ACTION_FIRST_ITEM = Metric(
    name="genapp_action_first_item_sec",
    kind=Kind.HISTOGRAM,
    labels=("name", "env", "app"),
    help="Time from the start of an action to the first item that it streamed, in seconds.",
    unit="seconds",
    buckets=FIRST_ITEM_BUCKETS,
)
ACTION_IN_PROGRESS = Metric(
    name="genapp_action_in_progress",
    kind=Kind.GAUGE,
    labels=("name", "env", "app"),
    help="Actions that have begun and not ended.",
    unit="actions",
)

BACKEND_ERRORS = Metric(
    name="genapp_backend_errors_total",
    kind=Kind.COUNTER,
    labels=("backend", "operation", "env", "app"),
    help="Faults of metrics backends and plugins, by what was asked of them.",
    unit="faults",
)

EXTRA_METRICS: Mapping[str, Metric] = MappingProxyType(
    {"llm_tokens": LLM_TOKENS, "first_item": ACTION_FIRST_ITEM, "in_progress": ACTION_IN_PROGRESS}
)
"""Metrics beside the contract, by the names that switch them on; off unless the setting ``extra_metrics`` has them."""

BESIDE = (*EXTRA_METRICS.values(), BACKEND_ERRORS)
"""Every metric beside the contract. The faults of backends need not be switched on."""

CATALOGUE = (*METRICS, *BESIDE)
"""Every metric."""

HISTOGRAMS = (ACTION_DURATION, HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE, ACTION_FIRST_ITEM)
"""Every histogram, in the order of the fields of :class:`Buckets`."""
