"""Agents of Pydantic AI, against a server on loopback: what is recorded, and that nothing else changes."""

import asyncio
from typing import Any

import openai
import pytest
from pydantic_ai import Agent, UnexpectedModelBehavior, UsageLimitExceeded, UsageLimits
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider

from comparing import Comparison
from llm_common import current_action
from llm_common.integrations.openai import track_client
from llm_common.integrations.pydantic_ai import ActionTracking, track_agent
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.conformance.http_client import Server
from llm_common.testing.conformance.recording import PATIENCE
from openai_server import GIVEN, SAID, WORDS, Break, Fail, Hang, ModelServer, Turn, Use

TEXT = "".join(WORDS)
ASK = "Where is my order?"
LLM, AGENT = "support_llm_call", "support_agent"
MODELS: dict[str, Any] = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}


def status(order: int) -> str:
    """Return the status of an order."""
    return f"order {order} is on its way"


def broken(order: int) -> str:
    """Raise."""
    raise LookupError(f"no order {order}")


def support(chat: Any, **options: Any) -> Any:
    return Agent(chat, name="Support", tools=[status, broken], **options)


async def run(agent: Any, **options: Any) -> Any:
    result = await agent.run(ASK, **options)
    return result.output, len(result.all_messages()), result.usage.requests


async def run_stream(agent: Any, **options: Any) -> Any:
    async with agent.run_stream(ASK, **options) as result:
        return [text async for text in result.stream_text(debounce_by=None)], await result.get_output()


async def run_events(agent: Any, **options: Any) -> Any:
    async with agent.run_stream_events(ASK, **options) as events:
        seen = [event async for event in events]
    return [type(event).__name__ for event in seen], seen[-1].result.output


async def iterate(agent: Any, **options: Any) -> Any:
    async with agent.iter(ASK, **options) as nodes:
        seen = [type(node).__name__ async for node in nodes]
    return seen, nodes.result.output


async def iterate_streams(agent: Any, **options: Any) -> Any:
    seen = []
    stream: Any
    async with agent.iter(ASK, **options) as nodes:
        async for node in nodes:
            seen.append(type(node).__name__)
            if Agent.is_model_request_node(node):
                async with node.stream(nodes.ctx) as stream:
                    seen.extend([type(event).__name__ async for event in stream])
    return seen, nodes.result.output


async def handle_events(agent: Any, **options: Any) -> Any:
    seen = []

    async def handler(ctx: Any, events: Any) -> None:
        async for event in events:
            seen.append(type(event).__name__)

    return (await agent.run(ASK, event_stream_handler=handler, **options)).output, seen


WHOLE = (run, iterate)
STREAMS = (run_stream, run_events, iterate_streams, handle_events)
WAYS = pytest.mark.parametrize("way", WHOLE + STREAMS)


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="hidden", base_url=server.url("/v1"), max_retries=0)


class Compared(Comparison):
    """A scenario of an agent that is tracked or isn't."""

    def __init__(self, server: Server, model: ModelServer, kind: str) -> None:
        super().__init__(server, model)
        self.kind = kind

    def __call__(self, *turns: Turn, **scenario: Any) -> Any:
        return self.compare(turns, lambda tracked: self.play(tracked, **scenario))

    def play(self, tracked: bool, way: Any, agent: Any = support, client_name: str = "", **options: Any) -> Any:
        async def scenario() -> Any:
            async with client_of(self.server) as client:
                if tracked and client_name:
                    track_client(client, client_name)
                one = agent(MODELS[self.kind]("small", provider=OpenAIProvider(openai_client=client)))
                return await way(track_agent(one) if tracked else one, **options)

        return asyncio.run(scenario())


@pytest.fixture(params=MODELS)
def compared(server: Server, model: ModelServer, request: pytest.FixtureRequest) -> Compared:
    return Compared(server, model, request.param)


@WAYS
def test_a_run_is_one_action_and_each_of_its_requests_another(compared: Compared, way: Any) -> None:
    assert TEXT in str(compared(Use("status", {"order": 7}), way=way))
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert compared.tokens() == (2 * GIVEN, 2 * SAID)
    streamed = way in STREAMS
    assert (compared.first_items(LLM), compared.first_items(AGENT)) == ((2, 1) if streamed else (0, 0))


@WAYS
@pytest.mark.parametrize("turn", [Fail(), Fail("429 Too Many Requests"), Break()], ids=lambda turn: repr(turn)[:22])
def test_a_run_whose_model_fails_is_an_error(compared: Compared, way: Any, turn: Turn) -> None:
    outcome = compared(Use("status", {"order": 7}), turn, way=way)
    assert issubclass(outcome[0], ModelAPIError)
    compared.expect((LLM, "ok"), (LLM, "error"), (AGENT, "error"))


@WAYS
def test_a_run_whose_tool_fails_is_an_error(compared: Compared, way: Any) -> None:
    assert compared(Use("broken", {"order": 7}), way=way)[0] is LookupError
    compared.expect((LLM, "ok"), (AGENT, "error"))


@WAYS
def test_a_run_that_uses_up_its_limit_is_an_error(compared: Compared, way: Any) -> None:
    outcome = compared(Use("status", {"order": 7}), way=way, usage_limits=UsageLimits(request_limit=1))
    assert outcome[0] is UsageLimitExceeded
    compared.expect((LLM, "ok"), (AGENT, "error"))


def test_a_model_that_calls_what_is_no_tool_is_an_error(compared: Compared) -> None:
    assert compared(*[Use("nothing", {})] * 2, way=run)[0] is UnexpectedModelBehavior
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "error"))


# Clients that are tracked themselves


@WAYS
def test_a_request_of_a_model_whose_client_is_tracked_is_counted_once(compared: Compared, way: Any) -> None:
    compared(Use("status", {"order": 7}), way=way, client_name="answer_llm_call")
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    compared(Fail(), way=way, client_name="answer_llm_call")
    compared.expect((LLM, "error"), (AGENT, "error"))


def test_tools_and_readers_of_a_stream_may_call_a_tracked_client(compared: Compared) -> None:
    async def summarize() -> str:
        async with client_of(compared.server) as client:
            answer = await track_client(client).responses.create(model="small", input="Summarize.")
            return answer.output_text

    async def read(agent: Any) -> None:
        async with agent.run_stream(ASK) as result:
            await summarize()
            async for _ in result.stream_text(debounce_by=None):
                pass

    def summarizing(chat: Any) -> Any:
        return Agent(chat, name="Support", tools=[summarize])

    with record_metrics() as recorded:
        compared.model.script(Use("summarize", {}))
        compared.play(True, way=read, agent=summarizing)
    own = "answer_llm_call"
    assert [event.name for event in recorded.events] == [LLM, own, own, LLM, AGENT]


# Callers who leave


def test_a_run_whose_iteration_is_left_is_cancelled(compared: Compared) -> None:
    async def leave(agent: Any) -> Any:
        async with agent.iter(ASK) as nodes:
            async for node in nodes:
                if Agent.is_call_tools_node(node):
                    break

    compared(way=leave)
    compared.expect((LLM, "ok"), (AGENT, "cancelled"))


def test_a_run_whose_caller_raises_is_an_error(compared: Compared) -> None:
    async def fail(agent: Any) -> Any:
        async with agent.iter(ASK):
            raise LookupError

    assert compared(way=fail)[0] is LookupError
    compared.expect((AGENT, "error"))


def test_a_stream_that_is_left_is_a_cancelled_request(compared: Compared) -> None:
    async def leave(agent: Any) -> Any:
        async with agent.run_stream(ASK) as result:
            async for text in result.stream_text(debounce_by=None):
                break
        return text

    compared(way=leave)
    assert compared.recorded.events[0] == ActionEvent(LLM, status="cancelled")
    assert [event.name for event in compared.recorded.events] == [LLM, AGENT]


@pytest.mark.parametrize("way", [run, run_stream, run_events, iterate])
def test_a_run_whose_task_is_cancelled_is_cancelled(compared: Compared, way: Any) -> None:
    async def cancel(agent: Any) -> Any:
        task = asyncio.create_task(way(agent))
        assert await asyncio.to_thread(compared.model.hanging.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    compared(Hang(), way=cancel)
    events = sorted(compared.recorded.events, key=lambda event: event.name)  # either may end first
    assert events == [ActionEvent(AGENT, status="cancelled"), ActionEvent(LLM, status="cancelled")]


# Names and the agent itself


def test_the_names_of_an_agent(recorded_metrics: RecordedMetrics) -> None:
    def agent(name: str | None) -> Any:
        return Agent(TestModel(), name=name)

    asyncio.run(track_agent(agent("Support")).run(ASK))
    asyncio.run(track_agent(agent("support_agent")).run(ASK))
    asyncio.run(track_agent(agent("Support"), "night_shift_agent").run(ASK))
    asyncio.run(track_agent(agent(None)).run(ASK, infer_name=False))
    assert [event.name for event in recorded_metrics.events] == [
        *(LLM, AGENT, LLM, AGENT),
        *("night_shift_llm_call", "night_shift_agent", "unnamed_llm_call", "unnamed_agent"),
    ]


def test_an_agent_is_called_what_its_variable_is_called(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        helper = track_agent(Agent(TestModel()))
        await helper.run(ASK)
        assert helper.name == "helper"

    asyncio.run(scenario())
    recorded_metrics.assert_action("helper_agent", status="ok")


def test_a_capability_of_the_agent_does_the_same(recorded_metrics: RecordedMetrics) -> None:
    agent = Agent(TestModel(), name="Support", capabilities=[ActionTracking()])
    asyncio.run(agent.run(ASK))
    assert [event.name for event in recorded_metrics.events] == [LLM, AGENT]


def test_tracking_an_agent_twice_counts_once(recorded_metrics: RecordedMetrics) -> None:
    agent = Agent(TestModel(), name="Support", capabilities=[ActionTracking()])
    asyncio.run(track_agent(track_agent(agent)).run(ASK))
    assert [event.name for event in recorded_metrics.events] == [LLM, AGENT]


def test_a_fallback_is_one_request(compared: Compared) -> None:
    def two(chat: Any) -> Any:
        return support(FallbackModel(chat, chat, fallback_on=(ModelHTTPError,)))

    compared(Fail(), way=run, agent=two)
    compared.expect((LLM, "ok"), (AGENT, "ok"))


def test_an_agent_in_an_agent_is_a_run_of_its_own(recorded_metrics: RecordedMetrics) -> None:
    inner = track_agent(Agent(TestModel(call_tools=[]), name="Inner"))
    outer = track_agent(Agent(TestModel(), name="Outer"))

    @outer.wrapped.tool_plain  # type: ignore[attr-defined, untyped-decorator]
    async def ask() -> str:
        return str((await inner.run(ASK)).output)

    asyncio.run(outer.run(ASK))
    assert [event.name for event in recorded_metrics.events] == [
        *("outer_llm_call", "inner_llm_call", "inner_agent", "outer_llm_call", "outer_agent")
    ]


def test_in_a_tool_the_run_is_the_current_action(recorded_metrics: RecordedMetrics) -> None:
    agent = Agent(TestModel(), name="Support")

    @agent.tool_plain
    async def weigh() -> str:
        current_action().size(3)
        return "heavy"

    asyncio.run(track_agent(agent).run(ASK))
    recorded_metrics.assert_action(AGENT, status="ok", size=3)


def test_runs_at_once_are_counted_apart(recorded_metrics: RecordedMetrics) -> None:
    agent = track_agent(Agent(TestModel(), name="Support"))

    async def scenario() -> None:
        await asyncio.gather(*(agent.run(ASK) for _ in range(5)), *(run_stream(agent) for _ in range(5)))

    asyncio.run(scenario())
    recorded_metrics.assert_action(LLM, status="ok", times=10)
    recorded_metrics.assert_action(AGENT, status="ok", times=10)


def test_capabilities_of_a_run_stay(recorded_metrics: RecordedMetrics) -> None:
    from pydantic_ai.capabilities import Hooks

    seen = []
    hooks: Any = Hooks()

    @hooks.on.before_run  # type: ignore[untyped-decorator]
    async def before(ctx: Any) -> None:
        seen.append(ctx.agent.name)

    asyncio.run(track_agent(Agent(TestModel(), name="Support")).run(ASK, capabilities=[hooks]))
    assert seen == ["Support"]
    recorded_metrics.assert_action(AGENT, status="ok")


def test_a_run_without_async_code(recorded_metrics: RecordedMetrics) -> None:
    agent = track_agent(Agent(TestModel(), name="Support"))
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())  # which Pydantic AI takes, and would leave open if it were its own
        assert agent.run_sync(ASK).output == "success (no tool calls)"
        with agent.run_stream_sync(ASK) as result:
            assert "".join(result.stream_text(delta=True)) == "success (no tool calls)"
    asyncio.set_event_loop(None)
    assert recorded_metrics.events == [ActionEvent(LLM, status="ok"), ActionEvent(AGENT, status="ok")] * 2


def test_a_model_is_tracked_without_an_agent_too(recorded_metrics: RecordedMetrics) -> None:
    chat = ActionTracking("support").get_wrapper_model(TestModel())
    question: Any = [ModelRequest.user_text_prompt(ASK)]

    async def scenario() -> None:
        await model_request(chat, question)
        async with model_request_stream(chat, question) as events:
            assert [type(event).__name__ async for event in events][-1] == "PartEndEvent"
        async with model_request_stream(chat, question):
            pass

    asyncio.run(scenario())
    assert [event.status for event in recorded_metrics.events] == ["ok", "ok", "cancelled"]
    recorded_metrics.assert_action(LLM, times=3)


def test_it_stands_in_no_specification() -> None:
    assert ActionTracking.get_serialization_name() is None


@pytest.mark.parametrize("wrong", ["agent", Agent, None])
def test_what_is_no_agent_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"track_agent\(\) takes an agent of Pydantic AI, not "):
        track_agent(wrong)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        track_agent(Agent(TestModel()), "")
