"""Agents of the OpenAI Agents SDK, against a server on loopback: what is recorded, and that nothing else changes."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import agents
import openai
import pytest
from agents import Agent, Runner, function_tool, generation_span, set_trace_processors, trace
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from agents.tracing import get_trace_provider, set_tracing_disabled

from comparing import Comparison, outcome_of
from llm_common import action_tracking
from llm_common.integrations.openai import track_client
from llm_common.integrations.openai_agents import ActionTrackingProcessor
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.conformance.http_client import Server
from llm_common.testing.conformance.recording import PATIENCE
from openai_server import GIVEN, SAID, WORDS, Break, Fail, Hang, ModelServer, Turn, Use

TEXT = "".join(WORDS)
ASK = "Where is my order?"
LLM, AGENT = "support_llm_call", "support_agent"
MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine() -> Iterator[None]:
    set_trace_processors([])
    yield
    set_trace_processors([])


@function_tool
def status(order: int) -> str:
    """Return the status of an order."""
    return f"order {order} is on its way"


@function_tool(failure_error_function=None)
def broken(order: int) -> str:
    """Raise."""
    raise LookupError(f"no order {order}")


@agents.input_guardrail(run_in_parallel=False)
async def refuse(context: Any, agent: Any, given: Any) -> Any:
    return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


@agents.output_guardrail
async def censor(context: Any, agent: Any, output: Any) -> Any:
    return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


def outcome(result: Any) -> Any:
    return result.final_output, result.last_agent.name, [type(item).__name__ for item in result.new_items]


async def run(agent: Any, **options: Any) -> Any:
    return outcome(await Runner.run(agent, ASK, **options))


async def run_streamed(agent: Any, **options: Any) -> Any:
    result = Runner.run_streamed(agent, ASK, **options)
    events = [event.type async for event in result.stream_events()]
    return events, outcome(result)


WAYS = pytest.mark.parametrize("way", [run, run_streamed])


class Compared(Comparison):
    """A scenario of an agent, while a processor is told or none."""

    def __init__(self, server: Server, model: ModelServer, kind: str) -> None:
        super().__init__(server, model)
        self.kind = kind

    def __call__(self, *turns: Turn, **scenario: Any) -> Any:
        return self.compare(turns, lambda tracked: self.play(tracked, **scenario))

    def with_client(self, name: str, *turns: Turn, **scenario: Any) -> Any:
        """Run a scenario with a client that is tracked too."""
        self.model.script(*turns)
        with record_metrics() as self.recorded:
            return outcome_of(lambda: self.play(True, client_name=name, **scenario))

    def play(self, tracked: bool, way: Any, agent: Any = None, client_name: str = "", **options: Any) -> Any:
        async def scenario() -> Any:
            async with openai.AsyncOpenAI(api_key="hidden", base_url=self.server.url("/v1"), max_retries=0) as client:
                if client_name:
                    track_client(client, client_name)
                chat = MODELS[self.kind](model="small", openai_client=client)
                return await way((agent or support)(chat), **options)

        set_trace_processors([ActionTrackingProcessor()] if tracked else [])
        return asyncio.run(scenario())


def support(chat: Any, **options: Any) -> Any:
    return Agent(name="Support", model=chat, tools=[status, broken], **options)


@pytest.fixture(params=MODELS)
def compared(server: Server, model: ModelServer, request: pytest.FixtureRequest) -> Compared:
    return Compared(server, model, request.param)


@WAYS
def test_an_agent_is_one_action_and_each_of_its_calls_another(compared: Compared, way: Any) -> None:
    assert TEXT in str(compared(Use("status", {"order": 7}), way=way))
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    if way is run or compared.kind == "responses":  # chat completions tell of usage in streams on demand
        assert compared.tokens() == (2 * GIVEN, 2 * SAID)


@WAYS
@pytest.mark.parametrize("turn", [Fail(), Fail("429 Too Many Requests"), Break()], ids=lambda turn: repr(turn)[:22])
def test_an_agent_whose_model_fails_is_an_error(compared: Compared, way: Any, turn: Turn) -> None:
    assert issubclass(compared(Use("status", {"order": 7}), turn, way=way)[0], Exception)
    compared.expect((LLM, "ok"), (LLM, "error"), (AGENT, "error"))


@WAYS
def test_an_agent_whose_tool_fails_is_an_error(compared: Compared, way: Any) -> None:
    compared(Use("broken", {"order": 7}), way=way)
    compared.expect((LLM, "ok"), (AGENT, "error"))


@WAYS
def test_an_agent_that_takes_too_many_turns_is_an_error(compared: Compared, way: Any) -> None:
    turns = [Use("status", {"order": 7})] * 3
    assert compared(*turns, way=way, max_turns=2)[0] is agents.MaxTurnsExceeded
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "error"))


@WAYS
def test_a_guardrail_that_trips_on_what_is_asked_is_an_error(compared: Compared, way: Any) -> None:
    outcome = compared(way=way, agent=lambda chat: support(chat, input_guardrails=[refuse]))
    assert outcome[0] is agents.InputGuardrailTripwireTriggered
    compared.expect((AGENT, "error"))


@WAYS
def test_a_guardrail_that_trips_on_the_answer_is_an_error(compared: Compared, way: Any) -> None:
    outcome = compared(way=way, agent=lambda chat: support(chat, output_guardrails=[censor]))
    assert outcome[0] is agents.OutputGuardrailTripwireTriggered
    compared.expect((LLM, "ok"), (AGENT, "error"))


@WAYS
def test_an_agent_that_hands_over_ends_and_the_next_one_begins(compared: Compared, way: Any) -> None:
    def triage(chat: Any) -> Any:
        return Agent(name="Triage agent", model=chat, handoffs=[support(chat)])

    compared(Use("transfer_to_support", {}), way=way, agent=triage)
    compared.expect(("triage_llm_call", "ok"), ("triage_agent", "ok"), (LLM, "ok"), (AGENT, "ok"))


@WAYS
def test_an_agent_that_is_a_tool_is_an_agent_run_of_its_own(compared: Compared, way: Any) -> None:
    def boss(chat: Any) -> Any:
        tool = support(chat).as_tool("ask_support", "Asks support")
        return Agent(name="Boss", model=chat, tools=[tool])

    compared(Use("ask_support", {"input": "?"}), way=way, agent=boss)
    compared.expect(("boss_llm_call", "ok"), (LLM, "ok"), (AGENT, "ok"), ("boss_llm_call", "ok"), ("boss_agent", "ok"))


def test_an_agent_that_is_run_while_an_exception_is_handled_is_ok(compared: Compared) -> None:
    async def rescue(agent: Any) -> Any:
        try:
            raise LookupError
        except LookupError:
            return await run(agent)

    compared(way=rescue)
    compared.expect((LLM, "ok"), (AGENT, "ok"))


def test_a_run_without_async_code(server: Server, recorded_metrics: RecordedMetrics) -> None:
    set_trace_processors([ActionTrackingProcessor()])
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())  # which the SDK takes, and would leave open if it were its own
        client = openai.AsyncOpenAI(api_key="hidden", base_url=server.url("/v1"))
        result = Runner.run_sync(support(OpenAIResponsesModel(model="small", openai_client=client)), ASK)
        runner.run(client.close())
    asyncio.set_event_loop(None)
    assert result.final_output == TEXT
    assert recorded_metrics.events == [ActionEvent(LLM, status="ok"), ActionEvent(AGENT, status="ok")]


def test_two_processors_count_once(compared: Compared) -> None:
    async def two(agent: Any) -> Any:
        agents.add_trace_processor(ActionTrackingProcessor(agent="second_agent"))
        return await run(agent)

    compared.with_client("", way=two)
    compared.expect((LLM, "ok"), (AGENT, "ok"))


# Clients that are tracked themselves


@WAYS
def test_a_call_of_a_model_whose_client_is_tracked_is_counted_once(compared: Compared, way: Any) -> None:
    compared.with_client("answer_llm_call", Use("status", {"order": 7}), way=way)
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert compared.first_items(LLM) == (2 if way is run_streamed else 0)


@WAYS
def test_a_tool_that_calls_a_tracked_client_is_counted(compared: Compared, way: Any) -> None:
    @function_tool
    async def summary() -> str:
        """Summarize."""
        async with track_client(openai.AsyncOpenAI(api_key="hidden", base_url=compared.server.url("/v1"))) as client:
            return (await client.responses.create(model="small", input="Summarize.")).output_text

    def summarizing(chat: Any) -> Any:
        return Agent(name="Support", model=chat, tools=[summary])

    for name in ("model_llm_call", ""):
        compared.with_client(name, Use("summary", {}), way=way, agent=summarizing)
        compared.expect((LLM, "ok"), ("answer_llm_call", "ok"), (LLM, "ok"), (AGENT, "ok"))


@WAYS
def test_without_tracing_a_tracked_client_and_a_block_count_the_same(compared: Compared, way: Any) -> None:
    async def by_hand(agent: Any) -> Any:
        with action_tracking(AGENT):
            return await way(agent, run_config=agents.RunConfig(tracing_disabled=True))

    assert TEXT in str(compared.with_client(LLM, Use("status", {"order": 7}), way=by_hand))
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert compared.first_items(LLM) == (2 if way is run_streamed else 0)
    assert compared.with_client(LLM, Fail(), way=by_hand)[0] is openai.InternalServerError
    compared.expect((LLM, "error"), (AGENT, "error"))


# Cancellations


def test_an_agent_whose_task_is_cancelled_is_cancelled(compared: Compared) -> None:
    async def cancel(agent: Any) -> Any:
        task = asyncio.create_task(run(agent))
        assert await asyncio.to_thread(compared.model.hanging.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    compared(Hang(), way=cancel)
    compared.expect((LLM, "cancelled"), (AGENT, "cancelled"))


def test_a_stream_that_is_cancelled_is_cancelled(compared: Compared) -> None:
    async def cancel(agent: Any) -> Any:
        result = Runner.run_streamed(agent, ASK)
        async for _ in result.stream_events():
            assert await asyncio.to_thread(compared.model.hanging.wait, PATIENCE)
            result.cancel()
        return result.final_output

    compared(Hang(5), way=cancel)
    compared.expect((LLM, "cancelled"), (AGENT, "cancelled"))


# Names


def test_the_names_that_are_given(server: Server, recorded_metrics: RecordedMetrics) -> None:
    set_trace_processors([ActionTrackingProcessor(llm_call="answer_llm_call", agent="first_agent")])

    async def scenario() -> None:
        async with openai.AsyncOpenAI(api_key="hidden", base_url=server.url("/v1")) as client:
            await run(support(OpenAIResponsesModel(model="small", openai_client=client)))

    asyncio.run(scenario())
    assert [event.name for event in recorded_metrics.events] == ["answer_llm_call", "first_agent"]


def test_a_model_call_outside_of_any_agent_is_unnamed(recorded_metrics: RecordedMetrics) -> None:
    set_trace_processors([ActionTrackingProcessor()])
    with trace("by hand"), generation_span(model="small", usage={"input_tokens": 3, "output_tokens": 4}):
        pass
    assert recorded_metrics.events == [ActionEvent("unnamed_llm_call", status="ok")]
    recorded_metrics.assert_metric("genapp_llm_tokens_total", 3, token_type="input", model="small")


def test_what_is_open_when_its_trace_ends_is_cancelled(recorded_metrics: RecordedMetrics) -> None:
    set_trace_processors([ActionTrackingProcessor()])
    with trace("by hand"):
        left = generation_span(model="small")
        left.start()
        agents.custom_span("left").start()
    assert recorded_metrics.events == [ActionEvent("unnamed_llm_call", status="cancelled")]
    left.finish()
    assert len(recorded_metrics.events) == 1


@pytest.mark.parametrize("wrong", [{"llm_call": ""}, {"agent": ""}])
def test_names_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        ActionTrackingProcessor(**wrong)


def test_where_tracing_is_disabled_an_error_says_so(caplog: pytest.LogCaptureFixture) -> None:
    set_tracing_disabled(True)
    try:
        with caplog.at_level(logging.ERROR, "llm_common"):
            ActionTrackingProcessor()
    finally:
        set_tracing_disabled(False)
    assert [record.getMessage()[:47] for record in caplog.records] == [
        "tracing of the OpenAI Agents SDK is disabled, so"[:47]
    ]
    caplog.clear()
    processor = ActionTrackingProcessor()
    processor.force_flush()
    processor.shutdown()
    assert caplog.records == []
    assert get_trace_provider().create_trace("x").export() is not None
