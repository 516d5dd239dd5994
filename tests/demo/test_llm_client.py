import asyncio
import socket

import pytest

from llm_common.demo.chance import seeded
from llm_common.demo.llm_client import LlmClient, LlmError, RateLimitedError, Reply
from llm_common.demo.llm_server import ADDRESS, LlmServer, Moods
from llm_common.testing import RecordedMetrics

QUESTION = {"role": "user", "content": "Do you sell tea?"}
SEARCH = {"type": "function", "function": {"name": "search_articles"}}
LLM = {"resource": "v1/chat/completions", "method": "POST", "app_type": "llm"}


async def ask(port: int, patience: float = 10) -> Reply:
    async with LlmClient(ADDRESS, port, patience) as llm:
        return await llm.complete([QUESTION], [SEARCH])


def complete(moods: Moods) -> Reply:
    with LlmServer(seeded(1, "LLM"), moods) as server:
        return asyncio.run(ask(server.port))


def test_the_reply_tells_what_to_search(recorded_metrics: RecordedMetrics) -> None:
    reply = complete(Moods(0, 0, 0, (0, 0)))
    assert [query for _, query in reply.searches] == ["sell tea"]
    assert reply.tokens > 0
    assert reply.given == 4
    recorded_metrics.assert_http(**LLM, status="200", times=1)


def test_too_many_requests_are_an_error_of_their_own(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(RateLimitedError, match="Too Many Requests"):
        complete(Moods(0, 1, 0, (0, 0)))
    recorded_metrics.assert_http(**LLM, status="429", times=1)


def test_a_broken_server_is_an_error_with_its_status(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(LlmError, match="status 500: Internal Server Error"):
        complete(Moods(0, 0, 1, (0, 0)))
    recorded_metrics.assert_http(**LLM, status="500", times=1)


def test_a_server_that_is_not_there_is_an_error(recorded_metrics: RecordedMetrics) -> None:
    with socket.create_server((ADDRESS, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(LlmError, match="no response: ConnectError"):
        asyncio.run(ask(port))
    recorded_metrics.assert_http(**LLM, status="error", times=1)


def test_a_server_that_says_nothing_in_time_is_an_error(recorded_metrics: RecordedMetrics) -> None:
    with socket.create_server((ADDRESS, 0)) as silent, pytest.raises(LlmError, match=r"no response: \w+Timeout"):
        asyncio.run(ask(silent.getsockname()[1], patience=0.01))
    recorded_metrics.assert_http(**LLM, status="timeout", times=1)


def test_a_cancelled_call_closes_its_connection(recorded_metrics: RecordedMetrics) -> None:
    async def call() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()  # to the end, which comes when the client closes
            gone.set()
            writer.close()

        async with await asyncio.start_server(serve, ADDRESS, 0) as server:
            calling = asyncio.create_task(ask(server.sockets[0].getsockname()[1]))
            await asked.wait()
            calling.cancel()
            async with asyncio.timeout(20):
                await gone.wait()
            with pytest.raises(asyncio.CancelledError):
                await calling

    asyncio.run(call())
    recorded_metrics.assert_http(**LLM, status="cancelled", times=1)
