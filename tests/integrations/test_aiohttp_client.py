"""aiohttp: the contract of clients, and what is particular to its sessions."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_common.contract import HttpExchange
from llm_common.integrations.aiohttp_client import tracked_trace_config
from llm_common.testing.conformance.http_client import (
    CHUNKED,
    SHORT,
    HttpClientContract,
    Request,
    Sending,
    Wire,
    answer,
    serving,
)
from llm_common.testing.conformance.recording import Recording, recording


class TestSession(HttpClientContract):
    def client(self, app_type: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(trace_configs=[tracked_trace_config(app_type)])

    async def send(self, client: aiohttp.ClientSession, sending: Sending) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(total=sending.timeout)
        async with client.request(sending.method, sending.url, data=sending.body, timeout=timeout) as response:
            async for piece in response.content.iter_any():
                yield piece


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as recorded:
        yield recorded


def session(*configs: aiohttp.TraceConfig, **options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(trace_configs=list(configs or [tracked_trace_config("llm")]), **options)


def test_one_trace_config_serves_several_sessions(recorded: Recording) -> None:
    async def scenario(url: str) -> None:
        config = tracked_trace_config("llm")
        async with session(config) as one, session(config) as other:
            await asyncio.gather(one.get(url), other.get(url))

    with serving(answer(b"hello")) as server:
        asyncio.run(scenario(server.url("/v1/models")))
    assert recorded.ended(2) == 2 * [HttpExchange("GET", "200", "v1/models", "llm", 0, 5)]


@pytest.mark.parametrize(("method", "size"), [("GET", 13), ("HEAD", 0)])
def test_a_status_that_is_raised_is_a_response_all_the_same(method: str, size: int, recorded: Recording) -> None:
    async def scenario(url: str) -> None:
        async with session(raise_for_status=True) as client:
            with pytest.raises(aiohttp.ClientResponseError, match="404"):
                await client.request(method, url)

    body = b"no such model" if method == "GET" else b""
    with serving(answer(body, "404 Not Found", length=13)) as server:
        asyncio.run(scenario(server.url()))
    assert recorded.one() == HttpExchange(method, "404", "/", "llm", 0, size)


def test_a_status_that_is_raised_without_a_length(recorded: Recording) -> None:
    async def scenario(url: str) -> None:
        async with session(raise_for_status=True) as client:
            with pytest.raises(aiohttp.ClientResponseError, match="404"):
                await client.get(url)

    def until_closed(request: Request, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 404 Not Found\r\n\r\n")
        wire.close()

    with serving(until_closed) as server:
        asyncio.run(scenario(server.url()))
    assert recorded.one() == HttpExchange("GET", "404", "/", "llm", 0, 0)


def test_a_request_that_aiohttp_repeats_by_itself_is_two_attempts(recorded: Recording) -> None:
    async def scenario(url: str) -> bytes:
        async with session() as client, client.get(url) as response:
            return await response.read()

    def once_deaf(request: Request, wire: Wire) -> None:
        answer(b"hello")(request, wire) if len(server.requests) > 1 else wire.close()

    with serving(once_deaf) as server:
        assert asyncio.run(scenario(server.url("/v1/models"))) == b"hello"
    assert recorded.ended(2) == [
        HttpExchange("GET", "error", "v1/models", "llm", 0, 0),
        HttpExchange("GET", "200", "v1/models", "llm", 0, 5),
    ]


def test_a_read_that_takes_too_long_is_a_timeout(recorded: Recording) -> None:
    async def scenario(url: str) -> None:
        async with session(timeout=aiohttp.ClientTimeout(sock_read=SHORT)) as client, client.get(url) as response:
            with pytest.raises(aiohttp.SocketTimeoutError):
                await response.read()

    def stops(request: Request, wire: Wire) -> None:
        wire.send(CHUNKED)
        wire.chunk(b"first")
        wire.hang()

    with serving(stops) as server:
        asyncio.run(scenario(server.url()))
    assert recorded.one() == HttpExchange("GET", "timeout", "/", "llm", 0, 5)


def test_requests_that_wait_for_a_connection(recorded: Recording) -> None:
    async def scenario(url: str) -> None:
        async with session(connector=aiohttp.TCPConnector(limit=1)) as client:

            async def get() -> bytes:
                async with client.get(url) as response:
                    return await response.read()

            assert {*await asyncio.gather(get(), get(), get())} == {b"hello"}

    with serving(answer(b"hello")) as server:
        asyncio.run(scenario(server.url()))
    assert recorded.ended(3) == 3 * [HttpExchange("GET", "200", "/", "llm", 0, 5)]


def test_the_handshake_of_a_websocket_is_an_exchange(recorded: Recording) -> None:
    async def scenario() -> None:
        async def talk(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(await socket.receive_str())
            await socket.close()
            return socket

        application = web.Application()
        application.router.add_get("/chat", talk)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with session() as client, client.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/chat") as socket:
            assert recorded.one() == HttpExchange("GET", "101", "chat", "llm", 0, 0)
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
        await runner.cleanup()

    asyncio.run(scenario())
    recorded.one()


def test_an_app_type_that_names_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="app_type must be a string, not None"):
        tracked_trace_config(None)  # type: ignore[arg-type]


def test_a_response_leaves_nothing_to_the_garbage_collector(recorded: Recording) -> None:
    async def alive(url: str) -> list[Any]:
        watched: list[Any] = []
        async with session() as client:
            for _ in range(3):
                async with client.get(url) as response:
                    await response.read()
                watched.append(weakref.ref(response))
            del response
            return [one() for one in watched]

    gc.collect()
    gc.disable()
    try:
        with serving(answer(b"hello")) as server:
            assert asyncio.run(alive(server.url())) == [None, None, None]
    finally:
        gc.enable()
    recorded.ended(3)
