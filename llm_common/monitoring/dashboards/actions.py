"""The dashboard *Actions*: what handlers, tasks, LLM calls and agents do, how often and how fast."""

from typing import NamedTuple

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, SUFFIXES, TASK
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_FIRST_ITEM, ACTION_SIZE, BACKEND_ERRORS, LLM_TOKENS
from llm_common.contract import Status
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
from llm_common.monitoring.dashboards.panels import COUNT, DATASOURCE_VARIABLE, SECONDS, Link, Panel, Query, graph
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
from llm_common.monitoring.promql import Match, ending, equal, like, top, unlike

TITLE = "Actions"
ACTIONS = Subject(
    count=ACTION_COUNT,
    duration=ACTION_DURATION,
    noun="actions",
    rate_unit="count:actions/s",
    error=equal(Status.ERROR),
    error_means="the status is `error`",
    cancelled=equal(Status.CANCELLED),
    cancelled_means="nobody wanted them any more, as when a chat is closed; that is no failure",
)
EACH = ("env", "app", "name")
"""What tells one action from another."""
TITLES = {"name": "Action", "app": "Application", "env": "Environment"}
EXTRA = "It is there where the setting `extra_metrics` has `{}`, or `all`."

VARIABLES = (
    Variable("env", "Environment", "The environments to look at."),
    Variable("app", "Application", "The applications to look at.", ("env",)),
    Variable("name", "Action", "The actions to look at.", ("env", "app")),
)
ROW = {"env": "env", "app": "app"}
LINKS = (
    Link("Only this action", address(ACTIONS_UID, DATASOURCE_VARIABLE, **ROW, name="name")),
    Link("HTTP requests of the application", address(HTTP_UID, DATASOURCE_VARIABLE, **ROW)),
)


class Section(NamedTuple):
    """A kind of action, which has a row of its own."""

    title: str
    noun: str
    """What several of them are called."""
    named: Match
    """Their names."""
    bounds: tuple[float, ...]
    """Durations that somebody waits for, in seconds, of the histogram's bounds."""
    limits: Limits


def sections(options: Options) -> tuple[Section, ...]:
    """Return the kinds of actions by suffix, and what has none of the suffixes."""
    given = options.thresholds
    usual = Limits(given.action_error_share)
    return (
        Section(
            *("Handlers", "handlers", like(ending(HANDLER)), (0.5, 2, 5)),
            usual._replace(seconds=given.handler_seconds),
        ),
        Section("Tasks", "tasks", like(ending(TASK)), (10, 60, 600), usual._replace(seconds=given.task_seconds)),
        Section(
            *("LLM calls", "LLM calls", like(ending(LLM_CALL)), (2, 10, 30)),
            usual._replace(seconds=given.llm_call_seconds),
        ),
        Section(
            *("Agents", "agent runs", like(ending(AGENT)), (10, 30, 120)),
            usual._replace(seconds=given.agent_seconds, cancelled=given.agent_cancelled_share),
        ),
        Section("Other actions", "other actions", unlike(ending(*SUFFIXES)), (0.1, 1, 10), usual),
    )


def actions_dashboard(options: Options) -> str:
    """Return the dashboard as JSON."""
    asking = Asking(options.recording_rules, {label: chosen(label) for label in EACH})
    rows = [
        Row("Overview", overview(asking, ACTIONS), collapsed=False),
        Row("The slowest, and those that fail most", rankings(asking, ACTIONS, TITLES, LINKS), collapsed=False),
        *(Row(section.title, section_panels(asking, section)) for section in sections(options)),
        Row("Compared with the same time last week", comparison(asking, ACTIONS)),
        Row("The metrics themselves", (faults(options.recording_rules),)),
    ]
    return dashboard_text(
        ACTIONS_UID,
        TITLE,
        "What the applications do: handlers, tasks, LLM calls and agents, told apart by the suffixes of their names.",
        [variable.build(ACTION_COUNT, options.recording_rules) for variable in VARIABLES],
        rows,
        (HTTP_UID, "HTTP requests"),
    )


def section_panels(asking: Asking, section: Section) -> tuple[Panel, ...]:
    """Return what is shown of one kind of action."""
    asking = asking.only(name=(section.named, chosen("name")))
    panels = details(asking, ACTIONS, section.noun, EACH, section.bounds, section.limits)
    if section.title == "Agents":
        return (*panels, in_progress(asking))
    size = graph(
        "Size",
        f"How much data the {section.noun} processed per second, in the units that they chose with `size()`. {MANY}",
        COUNT,
        Query(top(LONGEST, asking.rate(ACTION_SIZE, by=EACH)), legend_of(EACH)),
        span=12,
    )
    return (*panels, size, *(language_models(asking) if section.title == "LLM calls" else ()))


def faults(recorded: bool) -> Panel:
    """Return what is wrong with the measuring itself."""
    asking = Asking(recorded, {label: chosen(label) for label in ("env", "app")})
    by = ("env", "app", "backend", "operation")
    return graph(
        "Faults of backends",
        "How often metrics backends and plugins failed, by what was asked of them. The applications aren't affected, "
        f"but measurements are lost: the log has each kind of fault once, with its traceback. {MANY}",
        "count:faults/s",
        Query(top(LONGEST, asking.rate(BACKEND_ERRORS, by=by)), legend_of(by)),
        span=24,
    )


def in_progress(asking: Asking) -> Panel:
    """Return what only the row of agents has, since an agent may hang."""
    return graph(
        "In progress",
        "How many agent runs have begun and not ended. A line that never comes down is an agent that hangs. "
        f"{MANY} {EXTRA.format('in_progress')}",
        COUNT,
        Query(top(LONGEST, asking.in_progress(EACH)), legend_of(EACH)),
        span=12,
    )


def language_models(asking: Asking) -> tuple[Panel, ...]:
    """Return what only the row of LLM calls has: tokens, and an answer that begins before it ends."""
    streaming = asking.only(name=chosen("name"))
    return (
        graph(
            "Tokens",
            "How many tokens per second models were given (input) and gave (output). " + EXTRA.format("llm_tokens"),
            "count:tokens/s",
            Query(asking.rate(LLM_TOKENS, by=["model", "token_type"]), "{{model}} {{token_type}}"),
            span=12,
        ),
        graph(
            "Time to the first item",
            "What half and 95 % of those who waited for an answer had to wait until something could be shown to them: "
            f"for each selected action that streams, be it an LLM call, an agent or another. {MANY} "
            + EXTRA.format("first_item"),
            SECONDS,
            *(
                Query(
                    top(LONGEST, f"{streaming.quantile(share, ACTION_FIRST_ITEM, by=EACH)} > 0"),
                    f"{name} {legend_of(EACH)}",
                )
                for share, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            span=12,
        ),
    )
