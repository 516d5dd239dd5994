"""The dashboard *Actions*: what handlers, tasks, LLM calls and agents do, how often and how fast."""

from typing import NamedTuple

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, SUFFIXES, TASK
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_FIRST_ITEM, ACTION_SIZE, LLM_TOKENS
from llm_common.contract import Status
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
    COUNT,
    DATASOURCE_VARIABLE,
    GREEN,
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
from llm_common.monitoring.promql import Match, ending, existing, like, top, unlike

TITLE = "Actions"
ACTION_RATE = "count:actions/s"
EACH = ("env", "app", "name")
"""What tells one action from another."""
LEGEND = "{{name}} {{app}} {{env}}"
STATUS_COLORS = {Status.OK.value: GREEN, Status.ERROR.value: RED, Status.CANCELLED.value: YELLOW}
EXTRA = "Shown only where the setting `extra_metrics` has `{}`, or `all`."

VARIABLES = (
    Variable("env", "Environment", "The environments to look at."),
    Variable("app", "Application", "The applications to look at.", ("env",)),
    Variable("name", "Action", "The actions to look at.", ("env", "app")),
)


class Section(NamedTuple):
    """A kind of action, which has a row of its own."""

    title: str
    noun: str
    """What one of them is called, in the plural."""
    named: Match
    """Their names."""
    bounds: tuple[float, ...]
    """Durations that somebody waits for, in seconds, of the histogram's bounds."""
    limit: float | None
    """From where on their 95th percentile rings an alarm, in seconds."""
    suffix: str = ""


def sections(options: Options) -> tuple[Section, ...]:
    """Return the kinds of actions by suffix, and what has none of the suffixes."""
    limits = options.thresholds
    return (
        Section("Handlers", "handlers", like(ending(HANDLER)), (0.5, 2, 5), limits.handler_seconds, HANDLER),
        Section("Tasks", "tasks", like(ending(TASK)), (10, 60, 600), limits.task_seconds, TASK),
        Section("LLM calls", "LLM calls", like(ending(LLM_CALL)), (2, 10, 30), limits.llm_call_seconds, LLM_CALL),
        Section("Agents", "agents", like(ending(AGENT)), (10, 30, 120), limits.agent_seconds, AGENT),
        Section("Other actions", "other actions", unlike(ending(*SUFFIXES)), (0.1, 1, 10), None),
    )


def actions_dashboard(options: Options) -> str:
    """Return the dashboard as JSON."""
    asking = Asking(options.recording_rules, {label: chosen(label) for label in EACH})
    description = (
        "What the applications do: handlers, tasks, LLM calls and agents, told apart by the suffixes of their names."
    )
    rows = [
        Row("Overview", overview(asking, options), collapsed=False),
        Row("The slowest, and those that fail most", rankings(asking), collapsed=False),
        *(Row(section.title, section_panels(asking, section, options)) for section in sections(options)),
        Row("Compared with the same time last week", comparison(asking)),
    ]
    variables = [variable.build(ACTION_COUNT, options.recording_rules) for variable in VARIABLES]
    return dashboard_text(ACTIONS_UID, TITLE, description, variables, rows, (HTTP_UID, "HTTP requests"))


def overview(asking: Asking, options: Options) -> tuple[Panel, ...]:
    """Return what is selected, in a few numbers and lines."""
    limits = options.thresholds
    error = asking.share(ACTION_COUNT, status=Status.ERROR.value)
    cancelled = asking.share(ACTION_COUNT, status=Status.CANCELLED.value)
    p95 = asking.quantile(0.95, ACTION_DURATION)
    return (
        number(
            "Actions", "Selected actions that ended, per second.", ACTION_RATE, Query(asking.rate(ACTION_COUNT), "")
        ),
        number(
            "Error share",
            "Share of the selected actions that ended with the status `error`; red from where an alert fires for one.",
            SHARE,
            Query(error, ""),
            limit=limits.action_error_share,
        ),
        number(
            "Cancelled share",
            "Share of the selected actions that nobody wanted any more, such as those of a closed chat. No failures.",
            SHARE,
            Query(cancelled, ""),
        ),
        number("p95", "Nineteen of twenty selected actions took no longer than this.", SECONDS, Query(p95, "")),
        graph(
            "Actions by status",
            "How many selected actions ended per second, and how.",
            ACTION_RATE,
            Query(asking.rate(ACTION_COUNT, by=["status"]), "{{status}}"),
            stacked=True,
            colors=STATUS_COLORS,
        ),
        graph(
            "Error and cancelled share",
            "Shares of the selected actions. A cancelled action is no failure: its user or its task went away.",
            SHARE,
            Query(error, Status.ERROR.value),
            Query(cancelled, Status.CANCELLED.value),
            colors=STATUS_COLORS,
        ),
        graph(
            "Duration",
            "Half, 95 % and 99 % of the selected actions took no longer than this, estimated from the histogram.",
            SECONDS,
            *asking.quantiles(ACTION_DURATION),
        ),
    )


def rankings(asking: Asking) -> tuple[Panel, ...]:
    """Return the slowest and the most failing actions of the time that is selected."""
    titles = {"name": "Action", "app": "Application", "env": "Environment"}
    row = {"env": "env", "app": "app"}
    links = (
        Link("Only this action", address(ACTIONS_UID, DATASOURCE_VARIABLE, **row, name="name")),
        Link("HTTP requests of the application", address(HTTP_UID, DATASOURCE_VARIABLE, **row)),
    )
    slowest = top(LONGEST, f"{asking.quantile(0.95, ACTION_DURATION, by=EACH, over=RANGE)} > 0")
    failed = top(LONGEST, f"{asking.increase(ACTION_COUNT, by=EACH, status=Status.ERROR.value)} > 0")
    runs = asking.increase(ACTION_COUNT, by=EACH)
    error_share = asking.share_in_range(ACTION_COUNT, EACH, status=Status.ERROR.value)
    return (
        ranking(
            "Slowest actions",
            f"The {LONGEST} actions with the highest 95th percentile over the time that is selected. "
            "The name of an action leads to what is known of it alone.",
            titles,
            [Column("p95", SECONDS, slowest), Column("Runs", COUNT, existing(runs, slowest, on=EACH))],
            links,
        ),
        ranking(
            "Most failing actions",
            f"The {LONGEST} actions with the most errors over the time that is selected. "
            "The name of an action leads to what is known of it alone.",
            titles,
            [
                Column("Errors", COUNT, failed),
                Column("Error share", SHARE, existing(error_share, failed, on=EACH)),
            ],
            links,
        ),
    )


def section_panels(asking: Asking, section: Section, options: Options) -> tuple[Panel, ...]:
    """Return what is shown of one kind of action."""
    asking = asking.only(name=(section.named, chosen("name")))
    noun = section.noun
    many = f"Of the {noun} with the highest values, {LONGEST} at a time."
    fires = "" if section.limit is None else " The dashed line is where an alert fires."

    def each(expression: str) -> Query:
        return Query(top(LONGEST, expression), LEGEND)

    panels: list[Panel] = [
        graph(
            "Rate", f"How many {noun} ended per second. {many}", ACTION_RATE, each(asking.rate(ACTION_COUNT, by=EACH))
        ),
        graph(
            "Error share",
            f"Share of the {noun} that ended with the status `error`. {many} The dashed line is where an alert fires.",
            SHARE,
            each(asking.share(ACTION_COUNT, by=EACH, status=Status.ERROR.value)),
            limit=options.thresholds.action_error_share,
        ),
        graph(
            "Cancelled share",
            f"Share of the {noun} that nobody wanted any more. {many}"
            + (" The dashed line is where an alert fires." if section.suffix == AGENT else ""),
            SHARE,
            each(asking.share(ACTION_COUNT, by=EACH, status=Status.CANCELLED.value)),
            limit=options.thresholds.agent_cancelled_share if section.suffix == AGENT else None,
        ),
        graph(
            "Duration",
            f"Half, 95 % and 99 % of all selected {noun} took no longer than this, estimated from the histogram.",
            SECONDS,
            *asking.quantiles(ACTION_DURATION),
        ),
        graph(
            "p95 of each",
            f"Nineteen of twenty took no longer than this. {many}{fires}",
            SECONDS,
            each(asking.quantile(0.95, ACTION_DURATION, by=EACH)),
            limit=section.limit,
        ),
        durations(
            "Durations",
            f"How the durations of all selected {noun} are spread: the darker, the more of them ended so.",
            asking.rate(ACTION_DURATION, "bucket", by=["le"]),
        ),
        graph(
            "Share that ended in time",
            f"Share of all selected {noun} that took no longer than the bounds, whatever their status. "
            "Shown where the histogram has these bounds, as it has by default.",
            SHARE,
            *asking.within(ACTION_DURATION, section.bounds),
        ),
    ]
    if section.suffix == AGENT:
        panels.append(
            graph(
                "In progress",
                "Agent runs that have begun and not ended. A line that never comes down is an agent that hangs. "
                f"{many} {EXTRA.format('in_progress')}",
                COUNT,
                each(asking.in_progress(EACH)),
            )
        )
    else:
        panels.append(
            graph(
                "Size",
                f"How much data the {noun} processed per second, in the units that they chose with `size()`. {many}",
                COUNT,
                each(asking.rate(ACTION_SIZE, by=EACH)),
            )
        )
    if section.suffix == LLM_CALL:
        panels += language_models(asking)
    return tuple(panels)


def language_models(asking: Asking) -> tuple[Panel, ...]:
    """Return what only calls of language models have: tokens, and an answer that begins before it ends."""
    streaming = asking.only(name=chosen("name"))
    return (
        graph(
            "Tokens",
            "Tokens per second that models were given (input) and gave (output), by model. "
            + EXTRA.format("llm_tokens"),
            "count:tokens/s",
            Query(asking.rate(LLM_TOKENS, by=["model", "token_type"]), "{{model}} {{token_type}}"),
            span=12,
        ),
        graph(
            "Time to the first item",
            "How long half and 95 % of those who waited had to wait until something could be shown to them: of each "
            f"selected action that streams, be it an LLM call, an agent or a handler. {EXTRA.format('first_item')}",
            SECONDS,
            *(
                Query(top(LONGEST, streaming.quantile(share, ACTION_FIRST_ITEM, by=EACH)), f"{name} {LEGEND}")
                for share, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            span=12,
        ),
    )


def comparison(asking: Asking) -> tuple[Panel, ...]:
    """Return what is selected beside what it was a week before."""
    return (
        graph(
            "Rate",
            "How many selected actions ended per second, now and at the same time last week.",
            ACTION_RATE,
            *compared(asking.rate(ACTION_COUNT), asking.rate(ACTION_COUNT, offset=WEEK)),
            colors=BEFORE_COLORS,
        ),
        graph(
            "Error share",
            "Share of the selected actions that ended with the status `error`, now and at the same time last week.",
            SHARE,
            *compared(*(asking.share(ACTION_COUNT, offset, status=Status.ERROR.value) for offset in ("", WEEK))),
            colors=BEFORE_COLORS,
        ),
        graph(
            "p95",
            "Nineteen of twenty selected actions took no longer than this, now and at the same time last week.",
            SECONDS,
            *compared(*(asking.quantile(0.95, ACTION_DURATION, offset=offset) for offset in ("", WEEK))),
            colors=BEFORE_COLORS,
        ),
    )
