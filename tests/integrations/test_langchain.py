"""LLM calls and agent runs of LangChain and LangGraph, against a server on loopback and with LangChain's fakes."""

import asyncio
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Thread
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import httpx2
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt
from pydantic import SecretStr

from comparing import Comparison
from llm_common.integrations import open_action
from llm_common.integrations.langchain import RUNS, ActionTrackingCallback
from llm_common.integrations.openai import track_client
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.conformance.http_client import Server
from llm_common.testing.conformance.recording import PATIENCE
from openai_server import GIVEN, SAID, WORDS, Break, Fail, Hang, ModelServer, Turn, Use

TEXT = "".join(WORDS)
ASK = {"messages": [HumanMessage("Where is my order?")]}
LLM, AGENT = "chat_open_ai_llm_call", "support_agent"


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "false")
    yield
    assert RUNS.under_way == 0


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


@tool
def status(order: int) -> str:
    """Return the status of an order."""
    return f"order {order} is on its way"


@tool
def broken(order: int) -> str:
    """Raise."""
    raise LookupError(f"no order {order}")


@contextmanager
def chatting(server: Server, **options: Any) -> Iterator[ChatOpenAI]:
    """Yield a model with a connection of its own: by itself it would share one with models in other event loops."""
    with httpx2.Client() as http:
        yield chat_of(server, http_client=http, **options)


@asynccontextmanager
async def achatting(server: Server, **options: Any) -> AsyncIterator[ChatOpenAI]:
    async with httpx2.AsyncClient() as http:
        yield chat_of(server, http_async_client=http, **options)


def chat_of(server: Server, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="small",
        base_url=server.url("/v1"),
        api_key=SecretStr("hidden"),
        max_retries=0,
        stream_usage=True,
        stream_chunk_timeout=None,  # on Python 3.11 it can lose a cancellation, whoever looks on
        **options,
    )


def agent_of(chat: Any, name: str = "Support", tools: Any = (status, broken)) -> Any:
    """Return a graph in which a model and its tools have turns, as agents of LangChain are made."""
    model = chat.bind_tools(list(tools))

    def ask(state: State) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: State) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def go_on(state: State) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(State)
    graph.add_node("model", RunnableLambda(ask, aask))
    graph.add_node("tools", ToolNode(list(tools), handle_tool_errors=False))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", go_on)
    graph.add_edge("tools", "model")
    return graph.compile(name=name)


class Compared(Comparison):
    """A scenario that is given callbacks or none."""

    def __call__(self, *turns: Turn, scenario: Any, **options: Any) -> Any:
        def play(tracked: bool) -> Any:
            callbacks = [ActionTrackingCallback()] if tracked else []
            if inspect.iscoroutinefunction(scenario):
                return asyncio.run(aplay(callbacks))
            with chatting(self.server, **options) as chat:
                return scenario(chat, callbacks)

        async def aplay(callbacks: Any) -> Any:
            async with achatting(self.server, **options) as chat:
                return await scenario(chat, callbacks)

        return self.compare(turns, play)


@pytest.fixture
def compared(server: Server, model: ModelServer) -> Compared:
    return Compared(server, model)


# Models


def invoked(chat: Any, callbacks: Any) -> Any:
    return chat.invoke("Where?", {"callbacks": callbacks}).content


async def ainvoked(chat: Any, callbacks: Any) -> Any:
    return (await chat.ainvoke("Where?", {"callbacks": callbacks})).content


def streamed(chat: Any, callbacks: Any) -> Any:
    return [chunk.content for chunk in chat.stream("Where?", {"callbacks": callbacks})]


async def astreamed(chat: Any, callbacks: Any) -> Any:
    return [chunk.content async for chunk in chat.astream("Where?", {"callbacks": callbacks})]


def left(chat: Any, callbacks: Any) -> Any:
    chunks = chat.stream("Where?", {"callbacks": callbacks})
    first = next(chunks)
    chunks.close()
    return first.content


async def aleft(chat: Any, callbacks: Any) -> Any:
    chunks = chat.astream("Where?", {"callbacks": callbacks})
    first = await anext(chunks)
    await chunks.aclose()
    return first.content


WHOLE = pytest.mark.parametrize("scenario", [invoked, ainvoked])
STREAMS = pytest.mark.parametrize("scenario", [streamed, astreamed])
API = pytest.mark.parametrize("options", [{}, {"use_responses_api": True}], ids=["chat", "responses"])


@API
@WHOLE
def test_a_call_is_one_action_with_its_tokens(compared: Compared, scenario: Any, options: Any) -> None:
    compared(scenario=scenario, **options)
    compared.expect((LLM, "ok"))
    assert compared.tokens() == (GIVEN, SAID)
    assert compared.first_items(LLM) == 0


@API
@STREAMS
def test_a_stream_is_one_action_with_its_first_item(compared: Compared, scenario: Any, options: Any) -> None:
    said = compared(scenario=scenario, **options)
    if not options:
        assert "".join(said) == TEXT
    compared.expect((LLM, "ok"))
    assert compared.tokens() == (GIVEN, SAID)
    assert compared.first_items(LLM) == 1


@pytest.mark.parametrize("turn", [Fail(), Fail("429 Too Many Requests"), Fail("200 OK", b"{"), Break()])
@WHOLE
def test_a_call_that_fails_is_an_error(compared: Compared, scenario: Any, turn: Turn) -> None:
    assert issubclass(compared(turn, scenario=scenario)[0], Exception)
    compared.expect((LLM, "error"))


@STREAMS
def test_a_stream_that_breaks_is_an_error(compared: Compared, scenario: Any) -> None:
    assert issubclass(compared(Break(), scenario=scenario)[0], Exception)
    compared.expect((LLM, "error"))
    assert compared.first_items(LLM) == 1


async def read_step_by_step(chat: Any, callbacks: Any) -> Any:
    """Read a stream as servers do that write a sign of life meanwhile: each item in a task of its own."""
    chunks = aiter(chat.astream("Where?", {"callbacks": callbacks}))
    read = []
    while True:
        step = asyncio.ensure_future(anext(chunks))
        await asyncio.wait({step}, timeout=60)
        try:
            read.append(step.result().content)
        except StopAsyncIteration:
            return read


def test_a_stream_of_which_each_item_is_read_in_a_task_of_its_own_is_one_action(compared: Compared) -> None:
    compared(scenario=read_step_by_step)
    compared.expect((LLM, "ok"))
    assert compared.tokens() == (GIVEN, SAID)


def test_an_answer_from_the_cache_took_no_tokens(recorded_metrics: RecordedMetrics) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    chat = GenericFakeChatModel(
        messages=iter([AIMessage("Here.", usage_metadata=usage, response_metadata={"model_name": "small"})]),
        cache=InMemoryCache(),
    )
    for _ in range(3):
        assert chat.invoke("Where?", {"callbacks": [ActionTrackingCallback()]}).content == "Here."
    assert recorded_metrics.metric_value("genapp_llm_tokens_total") == 15
    recorded_metrics.assert_action("generic_fake_chat_model_llm_call", status="ok", times=3)


@pytest.mark.parametrize("scenario", [left, aleft])
def test_a_stream_that_is_left_is_cancelled(compared: Compared, scenario: Any) -> None:
    compared(scenario=scenario)
    compared.expect((LLM, "cancelled"))


def test_a_batch_is_as_many_actions(recorded_metrics: RecordedMetrics) -> None:
    callback = ActionTrackingCallback()
    chat = FakeListChatModel(responses=["yes"])
    assert [one.content for one in chat.batch(["a", "b", "c"], {"callbacks": [callback]})] == ["yes"] * 3
    recorded_metrics.assert_action("fake_list_chat_model_llm_call", status="ok", times=3)


def test_an_llm_that_is_no_chat_model_is_an_action_too(recorded_metrics: RecordedMetrics) -> None:
    assert FakeListLLM(responses=["yes"]).invoke("a", {"callbacks": [ActionTrackingCallback()]}) == "yes"
    recorded_metrics.assert_action("fake_list_llm_llm_call", status="ok")


def test_the_tokens_of_an_llm_are_in_its_output(recorded_metrics: RecordedMetrics) -> None:
    callback, run = ActionTrackingCallback(), uuid4()
    callback.on_llm_start({"id": ["langchain", "OpenAI"]}, ["a"], run_id=run)
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    callback.on_llm_end(
        LLMResult(generations=[[Generation(text="b")]], llm_output={"token_usage": usage, "model_name": "small"}),
        run_id=run,
    )
    recorded_metrics.assert_metric("genapp_llm_tokens_total", 3, token_type="input", model="small")
    recorded_metrics.assert_metric("genapp_llm_tokens_total", 4, token_type="output", model="small")


def test_the_name_of_a_call_is_that_of_the_configuration(recorded_metrics: RecordedMetrics) -> None:
    chat, callback = FakeListChatModel(responses=["yes"]), ActionTrackingCallback()
    chat.invoke("a", {"callbacks": [callback], "run_name": "Summarize ticket"})
    chat.invoke("a", {"callbacks": [ActionTrackingCallback(llm_call="answer_llm_call")], "run_name": "Other"})
    assert [event.name for event in recorded_metrics.events] == ["summarize_ticket_llm_call", "answer_llm_call"]


def test_a_model_that_tells_nothing_of_itself_is_unnamed(recorded_metrics: RecordedMetrics) -> None:
    callback, run = ActionTrackingCallback(), uuid4()
    callback.on_chat_model_start(None, [[]], run_id=run)  # type: ignore[arg-type]
    callback.on_llm_end(LLMResult(generations=[]), run_id=run)
    callback.on_llm_end(LLMResult(generations=[]), run_id=run)
    assert recorded_metrics.events == [ActionEvent("unnamed_llm_call", status="ok")]


def test_chains_are_no_actions(recorded_metrics: RecordedMetrics) -> None:
    chain = ChatPromptTemplate.from_template("Where is {it}?") | FakeListChatModel(responses=["yes"])
    chain.invoke({"it": "it"}, {"callbacks": [ActionTrackingCallback()], "run_name": "Chain"})
    assert [event.name for event in recorded_metrics.events] == ["fake_list_chat_model_llm_call"]


# Agents


def run(chat: Any, callbacks: Any) -> Any:
    return [m.content for m in agent_of(chat).invoke(ASK, {"callbacks": callbacks})["messages"]]


async def arun(chat: Any, callbacks: Any) -> Any:
    return [m.content for m in (await agent_of(chat).ainvoke(ASK, {"callbacks": callbacks}))["messages"]]


def stream(chat: Any, callbacks: Any) -> Any:
    agent = agent_of(chat)
    return [chunk.content for chunk, _ in agent.stream(ASK, {"callbacks": callbacks}, stream_mode="messages")]


async def astream(chat: Any, callbacks: Any) -> Any:
    agent = agent_of(chat)
    return [chunk.content async for chunk, _ in agent.astream(ASK, {"callbacks": callbacks}, stream_mode="messages")]


AGENTS = pytest.mark.parametrize("scenario", [run, arun])
AGENT_STREAMS = pytest.mark.parametrize("scenario", [stream, astream])
ROUND_TRIP = (Use("status", {"order": 7}),)


@AGENTS
def test_an_agent_is_one_action_and_each_of_its_calls_another(compared: Compared, scenario: Any) -> None:
    assert compared(*ROUND_TRIP, scenario=scenario)[-2:] == ["order 7 is on its way", TEXT]
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert compared.tokens() == (2 * GIVEN, 2 * SAID)


@AGENT_STREAMS
def test_a_streamed_agent_is_one_action_with_its_first_item(compared: Compared, scenario: Any) -> None:
    compared(*ROUND_TRIP, scenario=scenario)
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert (compared.first_items(AGENT), compared.first_items(LLM)) == (1, 2)


@AGENTS
def test_an_agent_whose_model_fails_is_an_error(compared: Compared, scenario: Any) -> None:
    assert issubclass(compared(*ROUND_TRIP, Fail(), scenario=scenario)[0], openai.APIError)
    compared.expect((LLM, "ok"), (LLM, "error"), (AGENT, "error"))


@AGENTS
def test_an_agent_whose_tool_fails_is_an_error(compared: Compared, scenario: Any) -> None:
    assert compared(Use("broken", {"order": 7}), scenario=scenario)[0] is LookupError
    compared.expect((LLM, "ok"), (AGENT, "error"))


def test_an_agent_that_never_comes_to_an_end_is_an_error(compared: Compared) -> None:
    def endless(chat: Any, callbacks: Any) -> Any:
        return agent_of(chat).invoke(ASK, {"callbacks": callbacks, "recursion_limit": 3})

    assert compared(*ROUND_TRIP * 5, scenario=endless)[0] is GraphRecursionError
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "error"))


def test_a_stream_of_an_agent_that_is_left_is_cancelled(compared: Compared) -> None:
    def leave(chat: Any, callbacks: Any) -> Any:
        updates = agent_of(chat).stream(ASK, {"callbacks": callbacks})
        first = next(updates)
        updates.close()
        return list(first)

    async def aleave(chat: Any, callbacks: Any) -> Any:
        updates = agent_of(chat).astream(ASK, {"callbacks": callbacks})
        first = await anext(updates)
        await updates.aclose()
        return list(first)

    for scenario in (leave, aleave):
        compared(*ROUND_TRIP, scenario=scenario)
        compared.expect((LLM, "ok"), (AGENT, "cancelled"))


def created(chat: Any, callbacks: Any) -> Any:
    agent: Any = create_agent(chat, [status, broken], name="Support")
    return [m.content for m in agent.invoke(ASK, {"callbacks": callbacks})["messages"]]


async def acreated(chat: Any, callbacks: Any) -> Any:
    agent: Any = create_agent(chat, [status, broken], name="Support")
    return [m.content for m in (await agent.ainvoke(ASK, {"callbacks": callbacks}))["messages"]]


@pytest.mark.parametrize("scenario", [created, acreated])
def test_what_create_agent_makes_is_an_agent(compared: Compared, scenario: Any) -> None:
    assert compared(*ROUND_TRIP, scenario=scenario)[-2:] == ["order 7 is on its way", TEXT]
    compared.expect((LLM, "ok"), (LLM, "ok"), (AGENT, "ok"))
    assert issubclass(compared(*ROUND_TRIP, Fail(), scenario=scenario)[0], openai.APIError)
    compared.expect((LLM, "ok"), (LLM, "error"), (AGENT, "error"))


def test_the_names_of_an_agent(recorded_metrics: RecordedMetrics) -> None:
    def graph(name: str | None) -> Any:
        builder = StateGraph(State)
        builder.add_node("say", lambda state: {"messages": [AIMessage("yes")]})
        builder.add_edge(START, "say")
        return builder.compile(name=name)

    callbacks = [ActionTrackingCallback()]
    graph(None).invoke(ASK, {"callbacks": callbacks})
    graph("support_agent").invoke(ASK, {"callbacks": callbacks})
    graph("Support").invoke(ASK, {"callbacks": callbacks, "run_name": "Night shift"})
    graph("Support").invoke(ASK, {"callbacks": [ActionTrackingCallback(agent="first_agent")]})
    names = [event.name for event in recorded_metrics.events]
    assert names == ["lang_graph_agent", "support_agent", "night_shift_agent", "first_agent"]


@pytest.mark.parametrize(
    ("marks", "names"),
    [
        ({"ls_integration": "langgraph"}, ["chain_agent"]),
        ({"ls_integration": "deepagents"}, ["chain_agent"]),
        ({"ls_integration": "shop", "lc_agent_name": "Support"}, ["chain_agent"]),
        ({"ls_integration": "shop"}, []),
        ({"ls_integration": "langchain_chat_model"}, []),
    ],
)
def test_what_carries_the_mark_of_a_graph_is_an_agent(
    recorded_metrics: RecordedMetrics, marks: Any, names: list[str]
) -> None:
    chain: Any = RunnableLambda(str)
    chain.invoke("a", {"callbacks": [ActionTrackingCallback()], "metadata": marks, "run_name": "Chain"})
    assert [event.name for event in recorded_metrics.events] == names


def test_a_graph_whose_name_has_no_letter_of_ascii_is_unnamed_with_a_hint(
    recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_action, "HINTED", set())
    chat: Any = FakeListChatModel(responses=["yes"])
    graph = StateGraph(State)
    graph.add_node("say", lambda state: {"messages": [chat.invoke(state["messages"], {"run_name": "Ответ"})]})
    graph.add_edge(START, "say")
    support: Any = graph.compile(name="Поддержка")
    with caplog.at_level(logging.WARNING, "llm_common"):
        for _ in range(2):
            support.invoke(ASK, {"callbacks": [ActionTrackingCallback()]})
    assert [event.name for event in recorded_metrics.events] == ["unnamed_llm_call", "unnamed_agent"] * 2
    assert [record.getMessage().rpartition(" name it with ")[2] for record in caplog.records] == [
        "ActionTrackingCallback(agent=…)",
        "ActionTrackingCallback(llm_call=…)",
    ]


def test_a_graph_in_a_chain_is_an_agent_and_a_graph_in_a_graph_is_not(server: Server, model: ModelServer) -> None:
    model.script(*ROUND_TRIP)
    with record_metrics() as recorded, chatting(server) as chat:
        builder = StateGraph(State)
        builder.add_node("inner", agent_of(chat, "Inner"))
        builder.add_edge(START, "inner")
        first: Any = RunnableLambda(lambda text: {"messages": [HumanMessage(text)]})
        chain = first | builder.compile(name="Outer")
        chain.invoke("Where?", {"callbacks": [ActionTrackingCallback()]})
    assert [event.name for event in recorded.events] == [LLM, LLM, "outer_agent"]


def test_an_agent_that_waits_for_a_human_is_ok(recorded_metrics: RecordedMetrics) -> None:
    builder = StateGraph(State)
    builder.add_node("ask", lambda state: {"messages": [AIMessage(interrupt("May I?"))]})
    builder.add_edge(START, "ask")
    graph: Any = builder.compile(name="Support", checkpointer=InMemorySaver())
    config: Any = {"callbacks": [ActionTrackingCallback()], "configurable": {"thread_id": "1"}}
    assert "__interrupt__" in graph.invoke(ASK, config)
    recorded_metrics.assert_action(AGENT, status="ok", times=1)


def test_callbacks_of_models_and_graphs_count_nothing_twice(server: Server, model: ModelServer) -> None:
    for inner in (shared := ActionTrackingCallback(), ActionTrackingCallback()):
        model.script(*ROUND_TRIP)
        with record_metrics() as recorded, chatting(server, callbacks=[inner]) as chat:
            agent_of(chat).invoke(ASK, {"callbacks": [shared]})
        assert [event.name for event in recorded.events] == [LLM, LLM, AGENT]


def test_runs_at_once_are_counted_apart(server: Server, recorded_metrics: RecordedMetrics) -> None:
    callbacks = [ActionTrackingCallback()]

    async def scenario() -> None:
        async with achatting(server) as chat:
            await asyncio.gather(*(arun(chat, callbacks) for _ in range(5)))

    asyncio.run(scenario())
    with chatting(server) as chat:
        threads = [Thread(target=run, args=(chat, callbacks)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recorded_metrics.assert_action(LLM, status="ok", times=10)
    recorded_metrics.assert_action(AGENT, status="ok", times=10)


# Clients that are tracked themselves


SUMMARIZE: Any = {"model": "small", "messages": [{"role": "user", "content": "Summarize."}]}


@API
@pytest.mark.parametrize("scenario", [invoked, ainvoked, streamed, astreamed, run, arun, stream, astream])
def test_a_call_of_a_model_whose_client_is_tracked_is_counted_once(
    compared: Compared, scenario: Any, options: Any
) -> None:
    def tracked(chat: Any, callbacks: Any) -> Any:
        if callbacks:
            track_client(chat.root_client)
        return scenario(chat, callbacks)

    async def atracked(chat: Any, callbacks: Any) -> Any:
        if callbacks:
            track_client(chat.root_async_client)
        return await scenario(chat, callbacks)

    compared(scenario=atracked if inspect.iscoroutinefunction(scenario) else tracked, **options)
    compared.expect((LLM, "ok"), *([(AGENT, "ok")] if scenario in (run, arun, stream, astream) else []))
    assert compared.tokens() == (GIVEN, SAID)


def test_a_model_that_asks_another_one_before_its_client_is_counted_once(
    server: Server, recorded_metrics: RecordedMetrics
) -> None:
    callbacks: list[Any] = [ActionTrackingCallback()]

    class Guarded(FakeListChatModel):
        def _call(self, *args: Any, **kwargs: Any) -> str:
            FakeListChatModel(responses=["harmless"]).invoke("Where?", {"callbacks": callbacks})
            return str(client.chat.completions.create(**SUMMARIZE).choices[0].message.content)

    with track_client(openai.OpenAI(api_key="hidden", base_url=server.url("/v1"))) as client:
        Guarded(responses=[]).invoke("Where?", {"callbacks": callbacks})
    assert [event.name for event in recorded_metrics.events] == ["fake_list_chat_model_llm_call", "guarded_llm_call"]


@AGENTS
def test_a_tool_that_calls_a_tracked_client_is_counted(compared: Compared, scenario: Any) -> None:
    def agent(chat: Any, callbacks: Any) -> Any:
        @tool
        def summary() -> str:
            """Summarize."""
            with openai.OpenAI(api_key="hidden", base_url=compared.server.url("/v1")) as client:
                summarizing = track_client(client) if callbacks else client
                return str(summarizing.chat.completions.create(**SUMMARIZE).choices[0].message.content)

        return agent_of(chat, tools=[summary])

    def ask(chat: Any, callbacks: Any) -> Any:
        return agent(chat, callbacks).invoke(ASK, {"callbacks": callbacks})["messages"][-2].content

    async def aask(chat: Any, callbacks: Any) -> Any:
        return (await agent(chat, callbacks).ainvoke(ASK, {"callbacks": callbacks}))["messages"][-2].content

    assert compared(Use("summary", {}), scenario=aask if scenario is arun else ask) == TEXT
    compared.expect((LLM, "ok"), ("answer_llm_call", "ok"), (LLM, "ok"), (AGENT, "ok"))


def test_who_reads_a_stream_may_call_a_tracked_client_meanwhile(
    server: Server, recorded_metrics: RecordedMetrics
) -> None:
    client = track_client(openai.OpenAI(api_key="hidden", base_url=server.url("/v1")))
    with client, chatting(server) as chat:
        for number, _ in enumerate(chat.stream("Where?", {"callbacks": [ActionTrackingCallback()]})):
            if number == 0:
                client.chat.completions.create(**SUMMARIZE)
    assert [event.name for event in recorded_metrics.events] == ["answer_llm_call", LLM]


@pytest.mark.parametrize("same", [False, True], ids=["another client", "the client of the model"])
def test_a_tracked_client_that_is_called_after_a_timeout_is_counted(
    server: Server, model: ModelServer, same: bool, recorded_metrics: RecordedMetrics
) -> None:
    async def main() -> None:
        async with achatting(server) as chat, openai.AsyncOpenAI(api_key="hidden", base_url=server.url("/v1")) as other:
            client = track_client(chat.root_async_client if same else other)
            try:
                async with asyncio.timeout(None) as timeout:
                    expiring = asyncio.create_task(expire(timeout, model))
                    await ainvoked(chat, [ActionTrackingCallback()])
            except TimeoutError:
                await client.chat.completions.create(**SUMMARIZE)
            await expiring
            await client.chat.completions.create(**SUMMARIZE)

    model.script(Hang())
    asyncio.run(main())
    gc.collect()
    recorded_metrics.assert_action("answer_llm_call", status="ok", times=2)
    recorded_metrics.assert_action(LLM, status="cancelled", times=1)


async def expire(block: asyncio.Timeout, model: ModelServer) -> None:
    assert await asyncio.to_thread(model.hanging.wait, PATIENCE)
    block.reschedule(asyncio.get_running_loop().time())


# Cancellations


async def updates(chat: Any, callbacks: Any) -> Any:
    return [update async for update in agent_of(chat).astream(ASK, {"callbacks": callbacks})]


async def cancelled(running: Any, model: ModelServer) -> None:
    task = asyncio.create_task(running)
    assert await asyncio.to_thread(model.hanging.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (ainvoked, [(LLM, "cancelled")]),
        (astreamed, [(LLM, "cancelled")]),
        (arun, [(LLM, "cancelled"), (AGENT, "cancelled")]),
        (updates, [(LLM, "cancelled"), (AGENT, "cancelled")]),
    ],
)
def test_what_is_cancelled_is_recorded_as_cancelled(
    server: Server, model: ModelServer, scenario: Any, expected: Any
) -> None:
    async def main(callbacks: Any) -> None:
        async with achatting(server) as chat:
            await cancelled(scenario(chat, callbacks), model)

    model.script(Hang(2), Hang(2))
    asyncio.run(main([]))
    model.hanging.clear()
    with record_metrics() as recorded:
        asyncio.run(main([ActionTrackingCallback()]))
        gc.collect()
    assert recorded.events == [ActionEvent(name, status=status) for name, status in expected]


def test_a_call_that_a_timeout_cancels_is_recorded_while_its_task_goes_on(server: Server, model: ModelServer) -> None:
    async def main() -> None:
        async with achatting(server) as chat:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as timeout:
                    expiring = asyncio.create_task(expire(timeout, model))
                    await ainvoked(chat, [ActionTrackingCallback()])
            await expiring
            for _ in range(2):  # the turns in which the event loop lets go of what was cancelled
                await asyncio.sleep(0)
        gc.collect()
        assert recorded.events == [ActionEvent(LLM, status="cancelled")]

    model.script(Hang())
    with record_metrics() as recorded:
        asyncio.run(main())


def test_a_call_that_langchain_remembers_is_cancelled_when_its_task_is_done(server: Server, model: ModelServer) -> None:
    remembered = uuid4()

    async def main() -> None:
        config: Any = {"callbacks": [ActionTrackingCallback()], "run_id": remembered}
        async with achatting(server) as chat:
            await cancelled(chat.ainvoke("Where?", config), model)

    model.script(Hang())
    with record_metrics() as recorded:
        asyncio.run(main())
    assert recorded.events == [ActionEvent(LLM, status="cancelled")]


def test_a_task_that_makes_many_calls_keeps_none_of_them(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Task:
        def __init__(self) -> None:
            self.callbacks: list[Any] = []
            self.add_done_callback, self.remove_done_callback = self.callbacks.append, self.callbacks.remove

    task, chat = Task(), FakeListChatModel(responses=["yes"])
    monkeypatch.setattr(asyncio, "current_task", lambda: task)
    for _ in range(3):
        chat.invoke("a", {"callbacks": [ActionTrackingCallback()]})
    assert task.callbacks == []
    recorded_metrics.assert_action("fake_list_chat_model_llm_call", status="ok", times=3)


def test_what_a_graph_leaves_open_when_it_fails_is_cancelled(recorded_metrics: RecordedMetrics) -> None:
    callback, (graph, node, helper, call) = ActionTrackingCallback(), (uuid4(), uuid4(), uuid4(), uuid4())
    callback.on_chain_start({}, {}, run_id=graph, metadata={"ls_integration": "langgraph"}, name="Support")
    inside = {"ls_integration": "langgraph", "langgraph_node": "model"}
    callback.on_chain_start({}, {}, run_id=node, parent_run_id=graph, metadata=inside)
    callback.on_tool_start({}, "", run_id=helper, parent_run_id=node, metadata=inside)
    callback.on_llm_start({"id": ["OpenAI"]}, ["a"], run_id=call, parent_run_id=helper, metadata=inside)
    callback.on_chain_error(asyncio.CancelledError(), run_id=graph)
    callback.on_llm_end(LLMResult(generations=[]), run_id=call)
    assert recorded_metrics.events == [
        ActionEvent("open_ai_llm_call", status="cancelled"),
        ActionEvent(AGENT, status="cancelled"),
    ]


def test_a_call_that_outlives_its_graph_ends_by_itself(recorded_metrics: RecordedMetrics) -> None:
    callback, (graph, node, call) = ActionTrackingCallback(), (uuid4(), uuid4(), uuid4())
    callback.on_chain_start({}, {}, run_id=graph, metadata={"ls_integration": "langgraph"}, name="Support")
    inside = {"ls_integration": "langgraph", "langgraph_node": "model"}
    callback.on_chain_start({}, {}, run_id=node, parent_run_id=graph, metadata=inside)
    callback.on_llm_start({"id": ["OpenAI"]}, ["a"], run_id=call, parent_run_id=node, metadata=inside)
    callback.on_chain_end({}, run_id=graph)
    assert RUNS.under_way == 1
    callback.on_llm_new_token("a", run_id=call)
    callback.on_llm_end(LLMResult(generations=[]), run_id=call)
    assert recorded_metrics.events == [ActionEvent(AGENT, status="ok"), ActionEvent("open_ai_llm_call", status="ok")]
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name=AGENT) == 0


@pytest.mark.parametrize("wrong", [{"llm_call": ""}, {"agent": ""}])
def test_names_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        ActionTrackingCallback(**wrong)


def test_what_ends_without_having_begun_is_nothing(recorded_metrics: RecordedMetrics) -> None:
    callback = ActionTrackingCallback()
    callback.on_chain_end({}, run_id=uuid4())
    callback.on_llm_error(ValueError(), run_id=uuid4())
    callback.on_tool_error(ValueError(), run_id=uuid4())
    callback.on_llm_new_token("a", run_id=uuid4())
    callback.on_stream_event(None, run_id=uuid4())
    assert recorded_metrics.events == []
