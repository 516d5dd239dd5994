"""Agent runs and model calls of the OpenAI Agents SDK as actions: ``add_trace_processor(ActionTrackingProcessor())``.

Of what the SDK offers to look on, run hooks aren't told of failures and cancellations, and are called in tasks of their
own, where neither can be seen; a tracing processor is told of the end of every agent and of every model call, whatever
it ends by. It is given no exception, but it is called while the exception passes, where :func:`sys.exc_info` has it.
"""

import logging
import sys
from typing import Any

from agents.tracing import (
    AgentSpanData,
    GenerationSpanData,
    ResponseSpanData,
    Span,
    Trace,
    TracingProcessor,
    get_trace_provider,
)

from llm_common.action_names import AGENT, LLM_CALL
from llm_common.dispatch import check_name
from llm_common.integrations.open_action import OpenAction, named

logger = logging.getLogger("llm_common")


class ActionTrackingProcessor(TracingProcessor):
    """Tracks every agent run and model call of the process, streamed or not.

    An agent is an action named after it (``support_agent``), and so is each of its model calls (``support_llm_call``);
    ``agent`` and ``llm_call`` give them other names. Where an agent hands over, its action ends and that of the next
    one begins. An agent that is used as a tool is an agent run inside of another. Of several processors one counts.

    The SDK tells of nothing where its tracing is disabled, as by ``OPENAI_AGENTS_DISABLE_TRACING=1``: that is logged as
    an error. To send no traces anywhere, replace the exporter: ``set_trace_processors([ActionTrackingProcessor()])``.
    Raises :class:`TypeError` or :class:`ValueError` for names that aren't strings or are empty.
    """

    def __init__(self, *, llm_call: str | None = None, agent: str | None = None) -> None:
        for name in (llm_call, agent):
            if name is not None:
                check_name(name)
        self._llm_call = llm_call
        self._agent = agent
        if get_trace_provider().create_trace("llm_common").export() is None:
            logger.error(
                "tracing of the OpenAI Agents SDK is disabled, so no agent run and no model call is counted; "
                "unset OPENAI_AGENTS_DISABLE_TRACING and call "
                "set_trace_processors([ActionTrackingProcessor()]), which sends no traces anywhere"
            )

    def on_trace_start(self, trace: Trace) -> None:
        """Do nothing: what counts are the spans."""

    def on_span_start(self, span: Span[Any]) -> None:
        """Begin an agent run or a model call."""
        if span.span_id in SPANS:  # another processor has told of it
            return
        data = span.span_data
        above = SPANS.get(span.parent_id or "")
        owner = above.owner if above is not None else "unnamed"
        action = None
        if isinstance(data, AgentSpanData):
            owner = data.name
            action = OpenAction(self._agent or named(owner, AGENT, "ActionTrackingProcessor(agent=…)"))
        elif isinstance(data, GenerationSpanData | ResponseSpanData):
            action = OpenAction(self._llm_call or named(owner, LLM_CALL, "ActionTrackingProcessor(llm_call=…)"))
            action.cover()
        SPANS[span.span_id] = OpenSpan(span.trace_id, owner, action)

    def on_span_end(self, span: Span[Any]) -> None:
        """End it, by the exception that passes here, if any."""
        opened = SPANS.pop(span.span_id, None)
        if opened is None or opened.action is None:
            return
        _read(span.span_data, opened.action)
        exception = sys.exc_info()[1]
        if exception is opened.handled:  # the application calls an agent while it handles an exception of its own
            exception = None
        if span.error is not None:
            opened.action.fail("SpanError")  # and not its message, in which anything may stand
        opened.action.end(exception)

    def on_trace_end(self, trace: Trace) -> None:
        """End as cancelled what is still open: generators that nobody reads on may close after their trace."""
        for number, opened in SPANS.copy().items():
            if opened.trace == trace.trace_id and SPANS.pop(number, None) is not None and opened.action is not None:
                opened.action.cancel()

    def shutdown(self) -> None:
        """Do nothing: nothing is kept back."""

    def force_flush(self) -> None:
        """Do nothing: nothing is kept back."""


class OpenSpan:
    """A span under way."""

    __slots__ = ("action", "handled", "owner", "trace")

    def __init__(self, trace: str, owner: str, action: OpenAction | None) -> None:
        self.trace = trace
        self.owner = owner
        """What the agent is called that the span belongs to."""
        self.action = action
        self.handled = sys.exc_info()[1]
        """The exception that was being handled when it began."""


SPANS: dict[str, OpenSpan] = {}
"""All spans under way, by their ids: one collection, so that no two processors count the same span.

It takes no lock, since each step is one operation on the dictionary, and an action ends once.
"""


def _read(data: Any, action: OpenAction) -> None:
    """Take the tokens of a model call."""
    usage = getattr(data, "usage", None)
    if isinstance(usage, dict):
        model = getattr(data, "model", None) or getattr(getattr(data, "response", None), "model", None)
        action.used(model, usage.get("input_tokens"), usage.get("output_tokens"))
