"""Agent runs and model requests of Pydantic AI as actions: ``track_agent(agent)``, or a capability of the agent."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

from pydantic_ai import ModelResponse, ModelSettings, RunContext
from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.capabilities import AbstractCapability, WrapRunHandler
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.run import AgentRunResult

from llm_common.action_names import AGENT, LLM_CALL
from llm_common.dispatch import check_name
from llm_common.integrations.open_action import OpenAction, named
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking

Deps = TypeVar("Deps")
Output = TypeVar("Output")


def track_agent(agent: AbstractAgent[Deps, Output], name: str | None = None) -> WrapperAgent[Deps, Output]:
    """Return ``agent``, each of whose runs is an action, and each of whose model requests is one.

    They are named after ``name``, else after the agent: ``support_agent`` and ``support_llm_call``. However a run is
    started and its result taken, it is an action until it ends; one that is left before its end is ``cancelled``. A
    request is an action of its own with each attempt, streamed or not.

    What is returned is for running: it has no ``tool`` and its like, which belong to the agent. An agent for durable
    execution takes no capabilities for a single run, which is what this gives it: make such an agent with
    ``capabilities=[ActionTracking()]`` instead. Raises :class:`TypeError` for what is no agent or where
    ``name`` isn't a string, and :class:`ValueError` where the name is empty.
    """
    if not isinstance(agent, AbstractAgent):
        raise TypeError(f"track_agent() takes an agent of Pydantic AI, not {agent!r:.100}")
    return ActionTrackingAgent(agent, ActionTracking(name))


class ActionTrackingAgent(WrapperAgent[Deps, Output]):
    """An agent that is tracked: what :func:`track_agent` returns."""

    def __init__(self, wrapped: AbstractAgent[Deps, Output], tracking: "ActionTracking") -> None:
        super().__init__(wrapped)
        self._tracking = tracking

    def iter(  # with the arguments of the agent's own, which are many
        self,
        user_prompt: Any = None,
        *,
        capabilities: Sequence[Any] | None = None,
        **options: Any,
    ) -> Any:
        """Begin a run, as the agent itself does; every other way of running an agent comes through here."""
        return super().iter(user_prompt, capabilities=[*(capabilities or ()), self._tracking], **options)


@dataclass
class ActionTracking(AbstractCapability[Any]):
    """Tracks the runs of an agent and its model requests: ``Agent(..., capabilities=[ActionTracking()])``.

    They are named after ``name``, else after the agent.
    """

    name: str | None = None

    _: KW_ONLY

    id: str | None = "llm_common_action_tracking"
    """The same for all, of which a run has one: nothing is counted twice."""

    run: ActionTracker | None = field(default=None, init=False, repr=False)
    """The action of the run that this is the capability of, while it is under way."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)

    @classmethod
    def get_serialization_name(cls) -> str | None:
        """Return ``None``: it stands in no specification."""
        return None

    async def for_run(self, ctx: RunContext[Any]) -> "ActionTracking":
        """Return one that knows what the agent of the run is called."""
        return replace(self, name=self.name or (ctx.agent.name if ctx.agent is not None else None))

    def named(self, suffix: str) -> str:
        """Return the name of an action of the agent."""
        return named(self.name or "unnamed", suffix, "track_agent(agent, name) or ActionTracking(name)")

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Track a run."""
        with action_tracking(self.named(AGENT)) as tracker:
            self.run = tracker
            try:
                return await handler()
            finally:
                self.run = None

    def get_wrapper_model(self, model: Model) -> Model:
        """Return the model that serves a request, tracked."""
        return ActionTrackingModel(model, self)


class ActionTrackingModel(WrapperModel):
    """A model each of whose requests is an action."""

    def __init__(self, wrapped: Model, tracking: ActionTracking) -> None:
        super().__init__(wrapped)
        self._tracking = tracking

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Send a request, which ends with its response."""
        action = OpenAction(self._tracking.named(LLM_CALL))
        action.cover()
        try:
            response = await super().request(messages, model_settings, model_request_parameters)
        except BaseException as exception:
            action.end(exception)
            raise
        self._read(response, action)
        action.end()
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Send a request, which ends with the stream of its response."""
        action = OpenAction(self._tracking.named(LLM_CALL))
        action.cover()
        try:
            async with super().request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as response:
                action.uncover()  # the request is made, and who reads the answer may make others
                self._watch(response, action)
                yield response
        except BaseException as exception:
            action.end(exception)
            raise
        self._read(response, action)
        if response.get().state == "complete":
            action.end()
        else:
            action.cancel()

    def _watch(self, response: StreamedResponse, action: OpenAction) -> None:
        """Be told of the first event of a stream, and of an exception that its consumer may keep to itself."""
        events = response._get_event_iterator  # the method that every kind of response must have

        async def watched() -> AsyncIterator[Any]:
            try:
                async for event in events():
                    action.first_item()
                    if self._tracking.run is not None:
                        self._tracking.run.first_item()
                    yield event
            except Exception as exception:
                action.end(exception)
                raise

        response._get_event_iterator = watched  # type: ignore[method-assign]

    def _read(self, response: ModelResponse | StreamedResponse, action: OpenAction) -> None:
        """Take the tokens of a request."""
        action.used(response.model_name, response.usage.input_tokens, response.usage.output_tokens)
