"""The bot's side of the conversation with the LLM server: one request, one reply, or an error that says why not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from llm_common.integrations.httpx import AsyncTrackedTransport

MODEL = "demo"
TIMEOUT = 10.0
"""How long, in seconds, the client waits for a byte."""

# A call that is cancelled between connecting and sending leaves its connection in httpx's pool for good, and a pool
# that is full serves nobody.
UNLIMITED = httpx.Limits(max_connections=None)


class LlmError(Exception):
    """The LLM server did not answer the request."""


class RateLimitedError(LlmError):
    """The server has too many requests (status 429); the same request may succeed a little later."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's message, how many tokens it took, and how many the conversation before it has."""

    message: Mapping[str, Any]
    tokens: int
    given: int = 0

    @property
    def searches(self) -> list[tuple[str, str]]:
        """The searches that the model asks for: the id of each call, and what to search."""
        calls = self.message.get("tool_calls", ())
        return [(call["id"], json.loads(call["function"]["arguments"])["query"]) for call in calls]


class LlmClient:
    """Calls the chat completions of a server on this machine. Use it in an ``async with`` statement."""

    def __init__(self, host: str, port: int, timeout: float = TIMEOUT) -> None:
        """Connect to nothing yet. ``timeout`` is in seconds."""
        wire = httpx.AsyncHTTPTransport(limits=UNLIMITED)
        transport = AsyncTrackedTransport(wire, app_type="llm")  # all that it takes to have the calls counted
        self._http = httpx.AsyncClient(transport=transport, base_url=f"http://{host}:{port}", timeout=timeout)

    async def complete(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the model's reply to a conversation, which may be the wish to call one of ``tools``.

        A cancelled call closes its connection. Raises :class:`RateLimitedError` for status 429 and :class:`LlmError`
        for any other that isn't 200, and where there is no response: no connection, or none in time.
        """
        request = {"model": MODEL, "messages": messages, "tools": tools}
        try:
            response = await self._http.post("/v1/chat/completions", json=request)
        except httpx.TransportError as problem:
            raise LlmError(f"no response: {type(problem).__name__} {problem}".rstrip()) from problem
        content = response.json()
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimitedError(content["error"]["message"])
        if response.status_code != HTTPStatus.OK:
            raise LlmError(f"status {response.status_code}: {content['error']['message']}")
        usage = content["usage"]
        return Reply(content["choices"][0]["message"], usage["completion_tokens"], usage["prompt_tokens"])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()
