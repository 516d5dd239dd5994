"""LLM calls of the OpenAI SDK, against a server on loopback: what is recorded, and that nothing else changes."""

import asyncio
import gc
import inspect
from collections.abc import Callable
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from pydantic import BaseModel

from comparing import Comparison, outcome_of
from llm_common.integrations.open_action import OpenAction
from llm_common.integrations.openai import Call, track_client
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.conformance.http_client import Server
from llm_common.testing.conformance.recording import PATIENCE
from openai_server import GIVEN, SAID, WORDS, Break, Fail, Hang, ModelServer, Overload, Say, Turn

CHAT: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Where is my order?"}]}
RESPONSE: dict[str, Any] = {"model": "small", "input": "Where is my order?"}
NAME = "answer_llm_call"
TEXT = "".join(WORDS)


class Reply(BaseModel):
    where: str


def client_of(server: Server, **options: Any) -> OpenAI:
    return OpenAI(api_key="hidden", base_url=server.url("/v1"), max_retries=0, **options)


def async_client_of(server: Server, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="hidden", base_url=server.url("/v1"), max_retries=0, **options)


class Compared(Comparison):
    """A scenario of a client that is tracked or isn't."""

    def __call__(self, *turns: Turn, sync: Callable[[OpenAI], Any], asynchronous: Any = None) -> Any:
        def play(tracked: bool) -> Any:
            if asynchronous is not None:
                return asyncio.run(aplay(tracked))
            with client_of(self.server) as client:
                return sync(track_client(client) if tracked else client)

        async def aplay(tracked: bool) -> Any:
            async with async_client_of(self.server) as client:
                return await asynchronous(track_client(client) if tracked else client)

        return self.compare(turns, play)

    def ended(self, status: str, *, tokens: bool = False, first_items: int = 0) -> None:
        self.expect((NAME, status))
        assert self.tokens() == ((GIVEN, SAID) if tokens else (0, 0))
        assert self.first_items(NAME) == first_items


@pytest.fixture
def compared(server: Server, model: ModelServer) -> Compared:
    return Compared(server, model)


# The ways of calling a model, each as (sync, async); they return what was said.


def chat_create(client: Any) -> Any:
    return client.chat.completions.create(**CHAT).choices[0].message.content


async def achat_create(client: Any) -> Any:
    return (await client.chat.completions.create(**CHAT)).choices[0].message.content


def beta_create(client: Any) -> Any:
    return client.beta.chat.completions.create(**CHAT).choices[0].message.content


async def abeta_create(client: Any) -> Any:
    return (await client.beta.chat.completions.create(**CHAT)).choices[0].message.content


def chat_parse(client: Any) -> Any:
    return client.chat.completions.parse(**CHAT).choices[0].message.content


async def achat_parse(client: Any) -> Any:
    return (await client.chat.completions.parse(**CHAT)).choices[0].message.content


def response_create(client: Any) -> Any:
    return client.responses.create(**RESPONSE).output_text


async def aresponse_create(client: Any) -> Any:
    return (await client.responses.create(**RESPONSE)).output_text


def response_parse(client: Any) -> Any:
    return client.responses.parse(**RESPONSE).output_text


async def aresponse_parse(client: Any) -> Any:
    return (await client.responses.parse(**RESPONSE)).output_text


def raw_create(client: Any) -> Any:
    raw = client.chat.completions.with_raw_response.create(**CHAT)
    return raw.status_code, raw.parse().choices[0].message.content


async def araw_create(client: Any) -> Any:
    raw = await client.chat.completions.with_raw_response.create(**CHAT)
    return raw.status_code, raw.parse().choices[0].message.content


def streaming_parse(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return raw.status_code, raw.parse().choices[0].message.content


async def astreaming_parse(client: Any) -> Any:
    async with client.responses.with_streaming_response.create(**RESPONSE) as raw:
        return raw.status_code, (await raw.parse()).output_text


def copied(client: Any) -> Any:
    return chat_create(client.with_options(timeout=20.0).copy(max_retries=0))


async def acopied(client: Any) -> Any:
    return await achat_create(client.with_options(timeout=20.0).copy(max_retries=0))


WHOLE = {
    "chat": (chat_create, achat_create),
    "beta": (beta_create, abeta_create),
    "chat parsed": (chat_parse, achat_parse),
    "responses": (response_create, aresponse_create),
    "responses parsed": (response_parse, aresponse_parse),
    "raw": (raw_create, araw_create),
    "raw, read as it comes": (streaming_parse, astreaming_parse),
    "copies": (copied, acopied),
}


def chat_stream(client: Any) -> Any:
    chunks = client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    assert type(chunks) is Stream
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]


async def achat_stream(client: Any) -> Any:
    chunks = await client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    assert type(chunks) is AsyncStream
    return [chunk.choices[0].delta.content async for chunk in chunks if chunk.choices]


def chat_next(client: Any) -> Any:
    said = []
    with client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}) as chunks:
        while (chunk := next(chunks, None)) is not None:
            said.append(chunk.to_json())
    return said, chunks.response.status_code, chunks.response.is_closed


async def achat_next(client: Any) -> Any:
    said = []
    async with await client.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        while (chunk := await anext(chunks, None)) is not None:
            said.append(chunk.to_json())
    return said, chunks.response.status_code, chunks.response.is_closed


def chat_helper(client: Any) -> Any:
    with client.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as events:
        return [event.type for event in events], events.get_final_completion().choices[0].message.content


async def achat_helper(client: Any) -> Any:
    async with client.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as events:
        types = [event.type async for event in events]
        return types, (await events.get_final_completion()).choices[0].message.content


def response_stream(client: Any) -> Any:
    return [event.type for event in client.responses.create(**RESPONSE, stream=True)]


async def aresponse_stream(client: Any) -> Any:
    return [event.type async for event in await client.responses.create(**RESPONSE, stream=True)]


def response_helper(client: Any) -> Any:
    with client.responses.stream(**RESPONSE) as events:
        return [event.type for event in events], events.get_final_response().output_text


async def aresponse_helper(client: Any) -> Any:
    async with client.responses.stream(**RESPONSE) as events:
        types = [event.type async for event in events]
        return types, (await events.get_final_response()).output_text


def raw_stream(client: Any) -> Any:
    raw = client.responses.with_raw_response.create(**RESPONSE, stream=True)
    events = raw.parse()
    assert raw.parse() is events
    return raw.status_code, [event.type for event in events]


async def araw_stream(client: Any) -> Any:
    raw = await client.responses.with_raw_response.create(**RESPONSE, stream=True)
    return raw.status_code, [event.type async for event in raw.parse()]


def streaming_stream(client: Any) -> Any:
    with client.responses.with_streaming_response.create(**RESPONSE, stream=True) as raw:
        return [event.type for event in raw.parse()]


async def astreaming_stream(client: Any) -> Any:
    async with client.responses.with_streaming_response.create(**RESPONSE, stream=True) as raw:
        return [event.type async for event in await raw.parse()]


STREAMS = {
    "chat": (chat_stream, achat_stream),
    "chat, step by step": (chat_next, achat_next),
    "chat's helper": (chat_helper, achat_helper),
    "responses": (response_stream, aresponse_stream),
    "responses' helper": (response_helper, aresponse_helper),
    "raw": (raw_stream, araw_stream),
    "raw, read as it comes": (streaming_stream, astreaming_stream),
}
BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def kind(pair: tuple[Any, Any], asynchronous: bool) -> dict[str, Any]:
    return {"sync": pair[0], "asynchronous": pair[1] if asynchronous else None}


@BOTH
@pytest.mark.parametrize("way", WHOLE)
def test_a_call_is_one_action_with_its_tokens(compared: Compared, way: str, asynchronous: bool) -> None:
    outcome = compared(sync=WHOLE[way][0], asynchronous=WHOLE[way][1] if asynchronous else None)
    assert outcome in (TEXT, (200, TEXT))
    compared.ended("ok", tokens=True)


@BOTH
@pytest.mark.parametrize("way", STREAMS)
def test_a_stream_is_one_action_until_its_last_chunk(compared: Compared, way: str, asynchronous: bool) -> None:
    compared(**kind(STREAMS[way], asynchronous))
    compared.ended("ok", tokens=True, first_items=1)


@BOTH
@pytest.mark.parametrize(
    "turn", [Fail(), Fail("429 Too Many Requests"), Fail("200 OK", b"{"), Break()], ids=lambda turn: repr(turn)[:24]
)
@pytest.mark.parametrize("way", WHOLE)
def test_a_call_that_fails_is_an_error(compared: Compared, way: str, turn: Turn, asynchronous: bool) -> None:
    outcome = compared(turn, **kind(WHOLE[way], asynchronous))
    if way == "raw" and turn == Fail("200 OK", b"{"):
        compared.ended("ok")  # the SDK returned the response, and the caller could not parse it
    else:
        assert issubclass(outcome[0], Exception)
        compared.ended("error")


@BOTH
@pytest.mark.parametrize("way", STREAMS)
def test_a_stream_that_is_refused_is_an_error(compared: Compared, way: str, asynchronous: bool) -> None:
    outcome = compared(Fail(), **kind(STREAMS[way], asynchronous))
    assert outcome[0] is openai.InternalServerError
    compared.ended("error")


@BOTH
@pytest.mark.parametrize("way", STREAMS)
def test_a_stream_that_breaks_in_the_middle_is_an_error(compared: Compared, way: str, asynchronous: bool) -> None:
    outcome = compared(Break(), **kind(STREAMS[way], asynchronous))
    assert outcome[0] is openai.APIConnectionError
    compared.ended("error", first_items=1)


@BOTH
def test_a_response_that_tells_of_a_failure_is_an_error(compared: Compared, asynchronous: bool) -> None:
    compared(Overload(), **kind(STREAMS["responses"], asynchronous))
    compared.ended("error", first_items=1)


def test_an_answer_that_is_a_failure_is_an_error(model: ModelServer, server: Server) -> None:
    failed = model.response({"model": "small"}, Say(), "failed")
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=failed))
    with record_metrics() as recorded, client_of(server, http_client=httpx2.Client(transport=transport)) as client:
        assert track_client(client).responses.create(**RESPONSE).status == "failed"
    assert recorded.events == [ActionEvent(NAME, status="error")]


def test_an_answer_that_is_too_long_to_parse_is_an_error_with_its_tokens(model: ModelServer, server: Server) -> None:
    cut = model.completion({"model": "small"}, Say())
    cut["choices"][0]["finish_reason"] = "length"
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=cut))
    with record_metrics() as recorded, client_of(server, http_client=httpx2.Client(transport=transport)) as client:
        outcome = outcome_of(lambda: track_client(client).chat.completions.parse(**CHAT, response_format=Reply))
    assert outcome[0] is openai.LengthFinishReasonError
    assert recorded.events == [ActionEvent(NAME, status="error")]
    assert recorded.metric_value("genapp_llm_tokens_total", token_type="input") == GIVEN


def test_an_answer_that_makes_no_sense_comes_through(server: Server) -> None:
    nonsense = b'data: {"choices": 5, "usage": 7, "model": 1}\n\ndata: [DONE]\n\n'
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=nonsense))
    with record_metrics() as recorded, client_of(server, http_client=httpx2.Client(transport=transport)) as client:
        chunks: Any = track_client(client).chat.completions.create(**CHAT, stream=True)
        assert [chunk.choices for chunk in chunks] == [5]
    assert recorded.events == [ActionEvent(NAME, status="ok")]


# Callers who leave


def leave(client: Any) -> Any:
    with client.chat.completions.create(**CHAT, stream=True) as chunks:
        return next(chunks).choices[0].delta.content


async def aleave(client: Any) -> Any:
    async with await client.chat.completions.create(**CHAT, stream=True) as chunks:
        return (await anext(chunks)).choices[0].delta.content


def leave_helper(client: Any) -> Any:
    with client.responses.stream(**RESPONSE) as events:
        return next(events).type


async def aleave_helper(client: Any) -> Any:
    async with client.responses.stream(**RESPONSE) as events:
        return (await anext(events)).type


def forget(client: Any) -> Any:
    for chunk in client.chat.completions.create(**CHAT, stream=True):
        said = chunk.choices[0].delta.content
        break
    del chunk
    gc.collect()
    return said


async def aforget(client: Any) -> Any:
    async for chunk in await client.chat.completions.create(**CHAT, stream=True):
        said = chunk.choices[0].delta.content
        break
    gc.collect()
    return said


@BOTH
@pytest.mark.parametrize("pair", [(leave, aleave), (leave_helper, aleave_helper), (forget, aforget)])
def test_a_stream_that_is_left_before_its_end_is_cancelled(
    compared: Compared, pair: tuple[Any, Any], asynchronous: bool
) -> None:
    compared(**kind(pair, asynchronous))
    said_something = pair[0] is not leave_helper  # whose first event comes before anything is said
    compared.ended("cancelled", first_items=int(said_something))


def never_read(client: Any) -> Any:
    client.chat.completions.create(**CHAT, stream=True).close()


async def anever_read(client: Any) -> Any:
    await (await client.chat.completions.create(**CHAT, stream=True)).close()


def headers_only(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return raw.headers["content-type"]


async def aheaders_only(client: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return raw.headers["content-type"]


@BOTH
@pytest.mark.parametrize("pair", [(never_read, anever_read), (headers_only, aheaders_only)])
def test_an_answer_that_nobody_reads_is_cancelled(
    compared: Compared, pair: tuple[Any, Any], asynchronous: bool
) -> None:
    compared(**kind(pair, asynchronous))
    compared.ended("cancelled")


def finish(client: Any) -> Any:
    with client.chat.completions.create(**CHAT, stream=True) as chunks:
        for chunk in chunks:
            if chunk.choices[0].finish_reason:
                break
    return chunk.choices[0].finish_reason


async def afinish(client: Any) -> Any:
    async with await client.responses.create(**RESPONSE, stream=True) as events:
        async for event in events:
            if event.type == "response.completed":
                break
    return event.response.output_text


@BOTH
def test_a_stream_that_is_left_when_all_is_said_is_ok(compared: Compared, asynchronous: bool) -> None:
    compared(**kind((finish, afinish), asynchronous))
    compared.ended("ok", tokens=asynchronous, first_items=1)


def read_body(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return raw.json()["choices"][0]["message"]["content"]


async def aread_body(client: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return (await raw.json())["choices"][0]["message"]["content"]


def read_lines(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as raw:
        return list(raw.iter_lines())


async def aread_lines(client: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as raw:
        return [line async for line in raw.iter_lines()]


@BOTH
@pytest.mark.parametrize("pair", [(read_body, aread_body), (read_lines, aread_lines)])
def test_a_body_that_the_caller_reads_without_the_sdk_is_ok_at_its_end(
    compared: Compared, pair: tuple[Any, Any], asynchronous: bool
) -> None:
    compared(**kind(pair, asynchronous))
    compared.ended("ok")


@BOTH
def test_a_body_that_breaks_while_the_caller_reads_it_is_an_error(compared: Compared, asynchronous: bool) -> None:
    outcome = compared(Break(), **kind((read_lines, aread_lines), asynchronous))
    assert issubclass(outcome[0], Exception)
    compared.ended("error")


def parse_as_response(client: Any) -> Any:
    with client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        response = raw.parse(to=httpx2.Response)
        return response.status_code, response.read()


def test_a_response_that_is_parsed_into_itself_ends_when_it_is_read(compared: Compared) -> None:
    compared(sync=parse_as_response)
    compared.ended("ok")


# Cancellations


@pytest.mark.parametrize("stream", [False, True], ids=["before the answer", "in the middle of a stream"])
@pytest.mark.parametrize("tracked", [False, True])
def test_a_call_whose_task_is_cancelled_is_cancelled(
    model: ModelServer, server: Server, stream: bool, tracked: bool
) -> None:
    async def call(client: AsyncOpenAI) -> None:
        if stream:
            async for _ in await client.chat.completions.create(**CHAT, stream=True):
                pass
        else:
            await client.chat.completions.create(**CHAT)

    async def scenario() -> None:
        async with async_client_of(server) as client:
            task = asyncio.create_task(call(track_client(client) if tracked else client))
            assert await asyncio.to_thread(model.hanging.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    model.script(Hang(2))
    with record_metrics() as recorded:
        asyncio.run(scenario())
    assert recorded.events == ([ActionEvent(NAME, status="cancelled")] if tracked else [])


def test_a_timeout_of_the_sdk_is_an_error(model: ModelServer, server: Server) -> None:
    model.script(Hang())
    with record_metrics() as recorded, client_of(server, timeout=0.05) as client, pytest.raises(openai.APITimeoutError):
        track_client(client).chat.completions.create(**CHAT)
    assert recorded.events == [ActionEvent(NAME, status="error")]


# The client itself


def test_retries_of_the_sdk_belong_to_one_call(model: ModelServer, server: Server) -> None:
    model.script(Fail(), Fail("429 Too Many Requests"))
    with record_metrics() as recorded, client_of(server) as client:
        chat_create(track_client(client).with_options(max_retries=2))
    assert len(server.requests) == 3
    assert recorded.events == [ActionEvent(NAME, status="ok")]


def test_only_the_client_that_is_given_is_tracked(server: Server) -> None:
    with record_metrics() as recorded, client_of(server) as plain, client_of(server) as client:
        assert track_client(client, "summary_llm_call") is client
        chat_create(plain)
        assert recorded.events == []
        chat_create(client)
    assert recorded.events == [ActionEvent("summary_llm_call", status="ok")]


def test_tracking_a_client_again_changes_nothing(server: Server) -> None:
    with record_metrics() as recorded, client_of(server) as client:
        client.chat.completions.with_raw_response.create(**CHAT)  # which the client keeps, untracked
        track_client(track_client(client), "summary_llm_call")
        raw_create(client)
        chat_create(client.copy())
    assert recorded.events == [ActionEvent(NAME, status="ok")] * 2


def test_views_that_the_client_made_before_are_tracked_too(server: Server) -> None:
    with record_metrics() as recorded, client_of(server) as client:
        client.with_raw_response.chat.completions.create(**CHAT)
        client.chat.with_raw_response.completions.create(**CHAT)
        assert recorded.events == []
        track_client(client)
        client.with_raw_response.chat.completions.create(**CHAT)
        client.chat.with_raw_response.completions.create(**CHAT)
    assert recorded.events == [ActionEvent(NAME, status="ok")] * 2


# Frameworks that count the same call


@BOTH
@pytest.mark.parametrize("way", WHOLE)
def test_a_call_that_a_framework_counts_is_no_action_of_its_own(
    compared: Compared, way: str, asynchronous: bool, recorded_metrics: RecordedMetrics
) -> None:
    above = OpenAction("support_llm_call")
    above.cover()
    compared(**kind(WHOLE[way], asynchronous))
    compared.expect()
    above.end()
    recorded_metrics.assert_action("support_llm_call", status="ok", times=1)


@BOTH
@pytest.mark.parametrize("way", STREAMS)
def test_the_first_item_of_a_stream_that_a_framework_counts_is_the_frameworks(
    server: Server, way: str, asynchronous: bool, recorded_metrics: RecordedMetrics
) -> None:
    async def ascenario() -> None:
        async with async_client_of(server) as client:
            await STREAMS[way][1](track_client(client))

    above = OpenAction("support_llm_call")
    above.cover()
    if asynchronous:
        asyncio.run(ascenario())
    else:
        with client_of(server) as client:
            STREAMS[way][0](track_client(client))
    above.end()
    assert recorded_metrics.events == [ActionEvent("support_llm_call", status="ok")]
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name="support_llm_call") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cancelled_ends_what_a_framework_covers(
    model: ModelServer, server: Server, stream: bool, recorded_metrics: RecordedMetrics
) -> None:
    async def call(client: AsyncOpenAI) -> None:
        answer: Any = await client.chat.completions.create(**CHAT, stream=stream)
        async for _ in answer:
            pass

    async def scenario() -> None:
        async with async_client_of(server) as client:
            above = OpenAction("support_llm_call")
            above.cover()
            task = asyncio.create_task(call(track_client(client)))
            assert await asyncio.to_thread(model.hanging.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await achat_create(client)
            above.end()

    model.script(Hang(2))
    asyncio.run(scenario())
    assert recorded_metrics.events == [ActionEvent(NAME, status="ok"), ActionEvent("support_llm_call", status="ok")]


def test_signatures_stay(server: Server) -> None:
    with client_of(server) as client:
        before = inspect.signature(client.chat.completions.create)
        assert inspect.signature(track_client(client).chat.completions.create) == before


@BOTH
def test_wrong_arguments_raise_what_the_sdk_raises_and_are_an_error(compared: Compared, asynchronous: bool) -> None:
    def wrong(client: Any) -> Any:
        return client.chat.completions.create(model="small")

    async def awrong(client: Any) -> Any:
        return wrong(client)  # without awaiting it: the SDK raises at once

    assert compared(**kind((wrong, awrong), asynchronous))[0] is TypeError
    compared.ended("error")


@pytest.mark.parametrize("wrong", ["client", OpenAI, None])
def test_what_is_no_client_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"track_client\(\) takes an OpenAI or AsyncOpenAI client, not "):
        track_client(wrong)


def test_a_name_that_is_none_is_refused(server: Server) -> None:
    with client_of(server) as client, pytest.raises(ValueError, match="empty"):
        track_client(client, "")


def test_calls_in_threads_are_counted_apart(server: Server) -> None:
    with record_metrics() as recorded, client_of(server) as client:
        threads = [Thread(target=chat_stream, args=(track_client(client),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert recorded.events == [ActionEvent(NAME, status="ok")] * 4
    assert recorded.metric_value("genapp_llm_tokens_total", token_type="output") == 4 * SAID


def test_a_response_that_is_closed_unread_is_cancelled_at_once(server: Server) -> None:
    with record_metrics() as recorded, client_of(server) as client:
        raw = track_client(client).chat.completions.with_raw_response.create(**CHAT, stream=True)
        assert recorded.events == []
        raw.http_response.close()
        assert recorded.events == [ActionEvent(NAME, status="cancelled")]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (SimpleNamespace(type="response.created"), False),
        (SimpleNamespace(type="response.in_progress"), False),
        (SimpleNamespace(type="response.output_item.added"), False),
        (SimpleNamespace(type="response.output_text.delta"), True),
        (SimpleNamespace(type="response.failed"), True),
        (SimpleNamespace(choices=[]), False),
        (SimpleNamespace(choices=[SimpleNamespace(delta=ChoiceDelta(role="assistant", content=""))]), False),
        (SimpleNamespace(choices=[SimpleNamespace(delta=ChoiceDelta(content="Hello"))]), True),
        (SimpleNamespace(choices=[SimpleNamespace(delta=ChoiceDelta.model_validate({"reasoning": "Hm"}))]), True),
        (SimpleNamespace(choices=[SimpleNamespace(text="Hello")]), True),
    ],
)
def test_what_says_only_that_an_answer_is_about_to_come_is_no_first_item(
    item: Any, says: bool, recorded_metrics: RecordedMetrics
) -> None:
    call = Call(NAME)
    call.took(item)
    call.end()
    assert recorded_metrics.metric_value("genapp_action_first_item_sec_count", name=NAME) == says
