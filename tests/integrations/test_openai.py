"""The OpenAI SDK through tracked transports: each call of a model is one exchange, streamed or not."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

from llm_common.contract import HttpExchange
from llm_common.integrations import httpx as tracked_httpx
from llm_common.integrations import httpx2 as tracked_httpx2
from llm_common.testing.conformance.http_client import Request, Server, Wire, answer, serving
from llm_common.testing.conformance.recording import Recording, recording
from openai_server import WORDS, ChatServer

LIBRARIES = pytest.mark.parametrize(
    ("library", "tracked"), [(httpx2, tracked_httpx2), (httpx, tracked_httpx)], ids=["httpx2", "httpx"]
)

CALL: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Where is my order?"}]}


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as recorded:
        yield recorded


@pytest.fixture
def chat() -> ChatServer:
    return ChatServer()


@pytest.fixture
def server(chat: ChatServer) -> Iterator[Server]:
    with serving(chat) as server:
        yield server


def expected(server: Server, chat: ChatServer) -> HttpExchange:
    return HttpExchange("POST", "200", "v1/chat/completions", "llm", len(server.requests[0].body), chat.sent)


def opened(library: Any, tracked: Any, server: Server) -> OpenAI:
    http_client = library.Client(transport=tracked.TrackedTransport(app_type="llm"))
    return OpenAI(api_key="hidden", base_url=server.url("/v1"), http_client=http_client)


def opened_async(library: Any, tracked: Any, server: Server) -> AsyncOpenAI:
    http_client = library.AsyncClient(transport=tracked.AsyncTrackedTransport(app_type="llm"))
    return AsyncOpenAI(api_key="hidden", base_url=server.url("/v1"), http_client=http_client)


@LIBRARIES
def test_a_call(library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording) -> None:
    with opened(library, tracked, server) as client:
        completion = client.chat.completions.create(**CALL)
    assert completion.choices[0].message.content == "".join(WORDS)
    assert recorded.one() == expected(server, chat)


@LIBRARIES
def test_an_async_call(library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording) -> None:
    async def scenario() -> str:
        async with opened_async(library, tracked, server) as client:
            return str((await client.chat.completions.create(**CALL)).choices[0].message.content)

    assert asyncio.run(scenario()) == "".join(WORDS)
    assert recorded.one() == expected(server, chat)


@LIBRARIES
def test_a_streamed_call_is_recorded_when_it_ends(
    library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording
) -> None:
    words = []
    with opened(library, tracked, server) as client:
        for chunk in client.chat.completions.create(**CALL, stream=True):
            words.append(chunk.choices[0].delta.content)
            assert recorded.exchanges == ()
            if len(words) == len(WORDS) - 1:
                chat.go_on.set()
    assert tuple(words) == WORDS
    assert recorded.one() == expected(server, chat)


@LIBRARIES
def test_a_streamed_async_call_is_recorded_when_it_ends(
    library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording
) -> None:
    async def scenario() -> list[str | None]:
        words = []
        async with opened_async(library, tracked, server) as client:
            async for chunk in await client.chat.completions.create(**CALL, stream=True):
                words.append(chunk.choices[0].delta.content)
                assert recorded.exchanges == ()
                if len(words) == len(WORDS) - 1:
                    chat.go_on.set()
        return words

    assert tuple(asyncio.run(scenario())) == WORDS
    assert recorded.one() == expected(server, chat)


@LIBRARIES
def test_a_stream_that_the_caller_leaves(
    library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording
) -> None:
    with opened(library, tracked, server) as client:
        with client.chat.completions.create(**CALL, stream=True) as stream:
            next(stream)
        exchange = recorded.one()
        chat.go_on.set()
    assert (exchange.status, exchange.resource) == ("200", "v1/chat/completions")
    assert 0 < exchange.response_bytes <= chat.sent


@LIBRARIES
def test_each_retry_of_the_sdk_is_an_exchange(
    library: Any, tracked: Any, server: Server, chat: ChatServer, recorded: Recording
) -> None:
    def busy_at_first(request: Request, wire: Wire) -> None:
        if len(server.requests) == 1:
            answer(b"{}", "429 Too Many Requests", "Retry-After-Ms: 1", "Content-Type: application/json")(request, wire)
        else:
            chat(request, wire)

    server.answer = busy_at_first
    with opened(library, tracked, server) as client:
        client.chat.completions.create(**CALL)
    assert [(one.status, one.response_bytes) for one in recorded.ended(2)] == [("429", 2), ("200", chat.sent)]
