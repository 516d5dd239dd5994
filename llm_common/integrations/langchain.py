"""LLM calls and agent runs of LangChain and LangGraph as actions: ``config={"callbacks": [ActionTrackingCallback()]}``.

LangChain tells a callback when a run begins and when it ends, except where an asyncio task is cancelled: then some of
its paths tell of nothing. So a run that is never ended is ended here, as ``cancelled``, when the graph around it fails,
when its task is cancelled, or when LangChain has forgotten it, whichever comes first.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any
from uuid import UUID
from weakref import finalize

from langchain_core.callbacks import BaseCallbackHandler

from llm_common.action_names import AGENT, LLM_CALL
from llm_common.dispatch import check_name
from llm_common.integrations.open_action import OpenAction, named

GRAPHS = frozenset({"langgraph", "langchain_create_agent", "deepagents"})
"""What graphs are marked as, by LangGraph and by those who make agents of it."""


class ActionTrackingCallback(BaseCallbackHandler):
    """Tracks LLM calls and agent runs; pass one to models, to graphs, or to both, which counts nothing twice.

    Each call of a chat model or LLM is an action named after the ``run_name`` that its configuration gives it, else
    after the class of the model (``chat_open_ai_llm_call``). Each run of a LangGraph graph, as ``create_agent`` makes
    them too, is an action named after the ``run_name``, else after the graph (``support_agent``); graphs inside of it
    belong to it. ``llm_call`` and ``agent`` give them other names. Chains and tools are no actions.

    One instance serves any number of runs at once, in any thread or task. Raises :class:`TypeError` or
    :class:`ValueError` for names that aren't strings or are empty.
    """

    run_inline = True
    """In async code too it is called in the task of the run, in order."""

    def __init__(self, *, llm_call: str | None = None, agent: str | None = None) -> None:
        for name in (llm_call, agent):
            if name is not None:
                check_name(name)
        self._llm_call = llm_call
        self._agent = agent

    # LLM calls

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin an LLM call."""
        self._llm_started(serialized, run_id, parent_run_id, metadata, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin an LLM call."""
        self._llm_started(serialized, run_id, parent_run_id, metadata, kwargs)

    def _llm_started(
        self,
        serialized: dict[str, Any] | None,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: dict[str, Any] | None,
        kwargs: dict[str, Any],
    ) -> None:
        name = self._llm_call or named(
            kwargs.get("name") or _class_name(serialized), LLM_CALL, "ActionTrackingCallback(llm_call=…)"
        )
        action = RUNS.begin(run_id, parent_run_id, name, (metadata or {}).get("ls_model_name"))
        if action is not None:
            action.cover()  # the client is called in this context, or in a copy of it

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Record the first item of a stream, and of the agent run around it."""
        message = getattr(chunk, "message", None)
        said = token or message is None or message.content or getattr(message, "tool_call_chunks", None)
        RUNS.streamed(run_id, said=bool(said))  # else the model has said no more than that it is about to answer

    def on_stream_event(self, event: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """Record the first item of a stream of events."""
        RUNS.streamed(run_id, said=True)

    def on_llm_end(self, response: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """End an LLM call, with the tokens that it used."""
        RUNS.end(run_id, answer=response)

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """End an LLM call by an exception."""
        RUNS.end(run_id, error)

    # Agent runs

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin an agent run, if it is one."""
        marks = metadata or {}
        # Every run of a graph has the first mark, and all that its nodes start, other graphs among it, the last.
        # Who makes agents of LangChain's own may put another word in the first mark, but keeps the second.
        graph = marks.get("ls_integration") in GRAPHS or "lc_agent_name" in marks
        if graph and "langgraph_node" not in marks:
            name = self._agent or named(kwargs.get("name") or "unnamed", AGENT, "ActionTrackingCallback(agent=…)")
            RUNS.begin(run_id, None, name, None)
        else:
            RUNS.inside(run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """End an agent run, if it is one."""
        RUNS.end(run_id)

    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """End an agent run by an exception, if it is one."""
        RUNS.end(run_id, error)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Take note of the agent run that a tool belongs to: it may call models itself."""
        RUNS.inside(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """Forget a tool."""
        RUNS.end(run_id)

    def on_tool_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Forget a tool."""
        RUNS.end(run_id)


class Run:
    """A run under way: an LLM call or an agent run, or (without an action) a part of an agent run."""

    __slots__ = ("action", "agent", "model", "on_end", "parts")

    def __init__(self, agent: "Run | None", action: OpenAction | None, model: Any) -> None:
        self.agent = agent
        """The agent run that it belongs to."""
        self.action = action
        self.model = model
        """The model as it was configured."""
        self.on_end: list[Callable[[], object]] = []
        """What is to be undone when it ends."""
        self.parts: set[int] = set()
        """The runs that belong to this agent run and are under way."""


class Runs:
    """All runs under way, by the numbers of their ids: one collection, so that no two callbacks count the same run."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._lock = RLock()  # runs may end while garbage is collected, wherever that is

    @property
    def under_way(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def begin(self, run_id: UUID, parent: UUID | None, name: str, model: Any) -> OpenAction | None:
        """Begin an action, and return it; ``None`` if another callback has told of the run."""
        number = run_id.int
        with self._lock:
            if number in self._runs:
                return None
            agent = self._agent_of(parent)
            action = OpenAction(name)
            run = Run(agent, action, model)
            self._add(number, run)
        forgotten = finalize(run_id, self.end, number, forgotten=True)
        forgotten.atexit = False
        run.on_end.append(forgotten.detach)
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop here
            task = None
        if task is not None:
            left = partial(self._left, number)
            task.add_done_callback(left)
            run.on_end.append(partial(task.remove_done_callback, left))  # a task may make any number of calls
        return action

    def _left(self, number: int, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():  # else another task may read on: some callers read each item of a stream in its own
            self.end(number, forgotten=True)

    def inside(self, run_id: UUID, parent: UUID | None) -> None:
        """Take note of a run that is no action but belongs to an agent run."""
        with self._lock:
            agent = self._agent_of(parent)
            if agent is not None:
                self._add(run_id.int, Run(agent, None, None))

    def _agent_of(self, parent: UUID | None) -> Run | None:
        above = self._runs.get(parent.int) if parent is not None else None
        return above if above is None or above.agent is None else above.agent

    def _add(self, number: int, run: Run) -> None:
        self._runs[number] = run
        if run.agent is not None:
            run.agent.parts.add(number)

    def streamed(self, run_id: UUID, *, said: bool) -> None:
        """Tell that something was streamed, after which the reader has its turn; ``said`` if it is of the answer."""
        run = self._runs.get(run_id.int)
        while run is not None and run.action is not None:
            run.action.uncover()
            if said:
                run.action.first_item()
            run = run.agent

    def end(
        self,
        run_id: UUID | int,
        exception: BaseException | None = None,
        *,
        answer: Any = None,
        forgotten: bool = False,
    ) -> None:
        """End a run, if it is under way; and if it failed, what belongs to it: else that ends by itself."""
        number = run_id if isinstance(run_id, int) else run_id.int
        ended = self._remove(number, failed=forgotten or exception is not None)
        for run in ended:
            for undo in run.on_end:
                undo()
        for part in ended[1:]:
            if part.action is not None:
                part.action.cancel()
        action = ended[0].action if ended else None
        if action is None:
            return
        if answer is not None:
            _read(answer, action, ended[0].model)
        if forgotten:
            action.cancel()
        else:
            action.end(exception)

    def _remove(self, number: int, *, failed: bool) -> list[Run]:
        """Remove a run, and return it with those of its parts that end with it."""
        with self._lock:
            run = self._runs.pop(number, None)
            if run is None:
                return []
            if run.agent is not None:
                run.agent.parts.discard(number)
            parts = [(part, self._runs[part]) for part in list(run.parts) if part in self._runs]
            for part_number, part in parts:
                part.agent = None
                if failed or part.action is None:
                    self._runs.pop(part_number, None)
        return [run, *(part for _, part in parts if failed)]


RUNS = Runs()


def _class_name(serialized: dict[str, Any] | None) -> str:
    """Return the name of the class of a model, which LangChain tells in one of two ways."""
    path: Sequence[str] = (serialized or {}).get("id") or ("unnamed",)
    return path[-1]


def _read(answer: Any, action: OpenAction, configured: Any) -> None:
    """Take the tokens of an LLM call from its result."""
    generations = getattr(answer, "generations", None)
    first = generations[0][0] if generations and generations[0] else None
    message = getattr(first, "message", None)
    about: dict[str, Any] = getattr(message, "response_metadata", None) or {}
    whole: dict[str, Any] = getattr(answer, "llm_output", None) or {}
    model = about.get("model_name") or about.get("model") or whole.get("model_name") or configured
    usage = getattr(message, "usage_metadata", None)
    if usage and "total_cost" in usage:  # the mark of an answer from LangChain's cache, which no model gave
        return
    if usage:
        action.used(model, usage.get("input_tokens"), usage.get("output_tokens"))
        return
    usage = whole.get("token_usage")
    if isinstance(usage, dict):
        action.used(model, usage.get("prompt_tokens"), usage.get("completion_tokens"))
