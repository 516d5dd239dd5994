"""httpx: the contract of clients, sync and async, and what is particular to its transports."""

from collections.abc import AsyncIterator, Iterator

import httpx

from httpx_transports import TransportTests
from llm_common.integrations.httpx import AsyncTrackedTransport, TrackedTransport
from llm_common.testing.conformance.http_client import HttpClientContract, Sending


class TestClient(HttpClientContract):
    def client(self, app_type: str) -> httpx.Client:
        return httpx.Client(transport=TrackedTransport(app_type=app_type), follow_redirects=True)

    def send(self, client: httpx.Client, sending: Sending) -> Iterator[bytes]:
        with client.stream(sending.method, sending.url, content=sending.body, timeout=sending.timeout) as response:
            yield from response.iter_bytes()


class TestAsyncClient(HttpClientContract):
    def client(self, app_type: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=AsyncTrackedTransport(app_type=app_type), follow_redirects=True)

    async def send(self, client: httpx.AsyncClient, sending: Sending) -> AsyncIterator[bytes]:
        async with client.stream(
            sending.method, sending.url, content=sending.body, timeout=sending.timeout
        ) as response:
            async for piece in response.aiter_bytes():
                yield piece


class TestTransports(TransportTests):
    httpx = httpx
    tracked = TrackedTransport
    async_tracked = AsyncTrackedTransport
