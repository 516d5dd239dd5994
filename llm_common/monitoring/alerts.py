"""The alerts, as data: when each fires, how urgent it is, what it says. Each has its section in docs/runbooks.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llm_common.action_names import AGENT, HANDLER, LLM_CALL
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, HTTP_REQUEST_DURATION, HTTP_REQUESTS, OVERFLOW
from llm_common.contract import Status
from llm_common.http_labels import ERROR, SERVER, TIMEOUT
from llm_common.monitoring import conditions
from llm_common.monitoring.conditions import ACTION, FAST, SLOW, burns, share_above, slower_than
from llm_common.monitoring.options import Options, Thresholds
from llm_common.monitoring.promql import ACTION_TOTAL, HTTP_TOTAL, ending, like, other_than, rate

CRITICAL, WARNING = "critical", "warning"
APP = "{{ $labels.app }} ({{ $labels.env }})"
NAME, APP_TYPE, RESOURCE = "{{ $labels.name }}", "{{ $labels.app_type }}", "{{ $labels.resource }}"
SHARE, DURATION = "{{ $value | humanizePercentage }}", "{{ $value | humanizeDuration }}"
"""What the templates of Prometheus put into annotations."""

SIDE = ("app", "app_type", "env")
"""The labels that tell apart what an application serves and what it depends on."""

SERVER_ERROR = like("5..")
NO_HELP = like(f"5..|{ERROR}|{TIMEOUT}")
"""What a dependency that is at fault answers, or doesn't."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of Prometheus."""

    name: str
    expression: str
    for_: str
    """How long the expression has to hold."""
    severity: str
    summary: str
    description: str
    options: tuple[str, ...] = ()
    """The thresholds and objectives that decide about it."""
    interval: str = "1m"
    """How often it is evaluated: more seldom where it reads what was recorded over days."""
    silence: Sequence[tuple[str, str]] = ()
    """Of an alert about what doesn't happen any more: how long it has to have happened, by how often at least."""

    def rule(self, runbooks: str = "") -> dict[str, Any]:
        """Return the rule as Prometheus reads it, with a link to its runbook where the documentation is served."""
        annotations = {"summary": self.summary, "description": self.description}
        if runbooks:
            annotations["runbook_url"] = f"{runbooks.rstrip('/')}/runbooks/#{self.name.lower()}"
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.for_,
            "labels": {"severity": self.severity},
            "annotations": annotations,
        }


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return every alert, with the thresholds and objectives of ``options``."""
    every = (
        *_about_actions(options.thresholds),
        *_about_http(options.thresholds),
        *_about_silence(options.thresholds),
        *_about_processes(),
        *_about_budgets(options),
    )
    return tuple(alert for alert in every if alert.expression)


def _about_actions(limits: Thresholds) -> Iterator[Alert]:
    least = limits.min_per_minute
    yield Alert(
        "ActionErrorShareHigh",
        share_above(limits.action_error_share, ACTION_COUNT, ACTION, Status.ERROR, least),
        "10m",
        WARNING,
        f"{APP}: {NAME} fails too often",
        f"{SHARE} of its runs end in an error, {_percent(limits.action_error_share)} are allowed. The log of the "
        "application says which errors, the dashboard Actions since when.",
        ("action_error_share", "min_per_minute"),
    )
    suffixes = {HANDLER: limits.handler_seconds, LLM_CALL: limits.llm_call_seconds, AGENT: limits.agent_seconds}
    yield Alert(
        "ActionSlow",
        "\nor\n".join(
            [
                *(
                    slower_than(seconds, ACTION_DURATION, ACTION, least, name=like(ending(suffix)))
                    for suffix, seconds in suffixes.items()
                ),
                conditions.tasks_slower_than(limits.task_seconds),
            ]
        ),
        "10m",
        WARNING,
        f"{APP}: {NAME} is slow",
        f"It takes {DURATION} (95th percentile, or the mean). Allowed are {limits.handler_seconds:g}s for handlers, "
        f"{limits.llm_call_seconds:g}s for LLM calls, {limits.agent_seconds:g}s for agents, {limits.task_seconds:g}s "
        "for tasks. Is what it calls slow, or is there more to do?",
        ("handler_seconds", "llm_call_seconds", "agent_seconds", "task_seconds", "min_per_minute"),
    )
    yield Alert(
        "AgentRunsCancelled",
        share_above(
            limits.agent_cancelled_share, ACTION_COUNT, ACTION, Status.CANCELLED, least, name=like(ending(AGENT))
        ),
        "10m",
        WARNING,
        f"{APP}: runs of {NAME} are cancelled",
        f"{SHARE} of its runs are cancelled, {_percent(limits.agent_cancelled_share)} are allowed. Do users leave "
        "because it is slow, or is a time-out too short?",
        ("agent_cancelled_share", "min_per_minute"),
    )


def _about_http(limits: Thresholds) -> Iterator[Alert]:
    least = limits.min_per_minute
    yield Alert(
        "HttpErrorShareHigh",
        share_above(limits.http_error_share, HTTP_REQUESTS, SIDE, SERVER_ERROR, least, app_type=SERVER),
        "10m",
        WARNING,
        f"{APP}: too many responses are errors",
        f"{SHARE} of the requests are answered with a status of 500 or more, {_percent(limits.http_error_share)} are "
        "allowed. The dashboard HTTP requests says which resources fail.",
        ("http_error_share", "min_per_minute"),
    )
    yield Alert(
        "HttpSlow",
        slower_than(limits.http_seconds, HTTP_REQUEST_DURATION, (*SIDE, "resource"), least, app_type=SERVER),
        "10m",
        WARNING,
        f"{APP}: {RESOURCE} is slow",
        f"It takes {DURATION} (95th percentile, or the mean), {limits.http_seconds:g}s are allowed. Is a dependency "
        "slow as well?",
        ("http_seconds", "min_per_minute"),
    )
    yield Alert(
        "DependencyDown",
        share_above(limits.dependency_failed_share, HTTP_REQUESTS, SIDE, NO_HELP, least, app_type=other_than(SERVER)),
        "5m",
        CRITICAL,
        f"{APP}: {APP_TYPE} is down",
        f"{SHARE} of the requests to it fail (a status of 500 or more, a time-out, no answer), "
        f"{_percent(limits.dependency_failed_share)} are allowed. Is it down, or the way to it?",
        ("dependency_failed_share", "min_per_minute"),
    )


def _about_silence(limits: Thresholds) -> Iterator[Alert]:
    yield Alert(
        "TaskStopped",
        conditions.stopped(),
        "5m",
        WARNING,
        f"{APP}: {NAME} doesn't run any more",
        f"It ran regularly, and for {DURATION} or longer no run has ended. Does its scheduler live, does a run hang, "
        "or was it removed?",
        interval="5m",
        silence=[(interval, while_) for interval, while_, _ in conditions.PAUSES],
    )
    yield Alert(
        "TaskFails",
        conditions.only_failing(),
        "5m",
        WARNING,
        f"{APP}: {NAME} only fails",
        "Its last runs ended in errors, and none in success: three or more within 6 hours, or all of the last day. The "
        "log of the application says which errors.",
        interval="5m",
    )
    yield Alert(
        "HandlerTrafficVanished",
        conditions.vanished("30m", limits.min_per_minute),
        "5m",
        WARNING,
        f"{APP}: nobody reaches {NAME}",
        "It ran {{ $value | humanize }} times a minute at this time of yesterday, and of last week too, but not once "
        "in the last 30 minutes. Does the application get updates, and do they lead there?",
        ("min_per_minute",),
        interval="5m",
        silence=[("30m", "8d")],
    )


def _about_processes() -> Iterator[Alert]:
    yield Alert(
        "TargetDown",
        "up == 0",  # a metric of Prometheus itself: whether the scrape succeeded
        "5m",
        CRITICAL,
        "{{ with $labels.app }}{{ . }} {{ end }}{{ with $labels.env }}({{ . }}) {{ end }}"
        "{{ $labels.instance }} can't be scraped",
        "Prometheus gets no metrics from {{ $labels.instance }}, job {{ $labels.job }}. Does the process run, and does "
        "it serve its metrics there?",
    )
    crowded = rate(ACTION_COUNT, by=(*ACTION,), name=OVERFLOW), rate(HTTP_REQUESTS, by=(*SIDE,), resource=OVERFLOW)
    yield Alert(
        "SeriesLimitReached",
        "\nor\n".join(f"{one} >= 0" for one in crowded),
        "5m",
        WARNING,
        APP + ": too many {{ if $labels.name }}names of actions{{ else }}HTTP series{{ end }}",
        f"What came after the limit is counted together as {OVERFLOW}, {{{{ $value | humanize }}}} times a second. Is "
        "there data in a name or a path? The log has the first one that was too many.",
    )

    yield Alert(
        "BackendFails",
        conditions.backend_fails(),
        "0m",
        WARNING,
        APP + ": the metrics backend {{ $labels.backend }} fails",
        "{{ $labels.operation }} failed {{ $value | humanize }} times within " + conditions.FAULTS_WINDOW + ". The "
        "application is not affected, but measurements are lost. Its log has the first fault with a traceback.",
    )


def _about_budgets(options: Options) -> Iterator[Alert]:
    least = options.thresholds.min_per_minute
    actions, http = options.objectives.actions, options.objectives.http
    for speed, for_, severity, burning, interval in (
        ("Fast", "2m", CRITICAL, FAST, "1m"),
        ("Slowly", "15m", WARNING, SLOW, "5m"),
    ):
        for kind, field, objective, expression in (
            ("Action", "actions", actions, burns(burning, actions, ACTION_TOTAL, Status.ERROR, least)),
            ("Http", "http", http, burns(burning, http, HTTP_TOTAL, SERVER_ERROR, least, app_type=SERVER)),
        ):
            yield Alert(
                f"{kind}BudgetBurns{speed}",
                expression,
                for_,
                severity,
                f"{APP}: the error budget burns {speed.lower()}",
                f"{SHARE} of all are errors; over 30 days the objective allows {_percent(1 - objective)}. Which of "
                "them fail, and what was changed before?",
                (field, "min_per_minute"),
                interval,
            )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
