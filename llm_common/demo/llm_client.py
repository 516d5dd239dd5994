"""The bot's side of the conversation with the LLM server: one request, one reply, or an error that says why not."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

TIMEOUT = 10.0
"""How long, in seconds, the client waits for a byte."""


class LlmError(Exception):
    """The LLM server did not answer the request."""


class RateLimitedError(LlmError):
    """The server has too many requests (status 429); the same request may succeed a little later."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's message, and how many tokens it took."""

    message: Mapping[str, Any]
    tokens: int

    @property
    def searches(self) -> list[tuple[str, str]]:
        """The searches that the model asks for: the id of each call, and what to search."""
        calls = self.message.get("tool_calls", ())
        return [(call["id"], json.loads(call["function"]["arguments"])["query"]) for call in calls]


class LlmClient:
    """Calls the chat completions of a server on this machine."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def complete(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the model's reply to a conversation, which may be the wish to call one of ``tools``.

        Runs in a thread. A cancelled call returns at once; its thread reads the answer to the end and drops it.
        Raises :class:`RateLimitedError` for status 429 and :class:`LlmError` for any other that isn't 200.
        """
        return await asyncio.to_thread(self._post, {"model": "demo", "messages": messages, "tools": tools})

    def _post(self, request: Mapping[str, Any]) -> Reply:
        connection = HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(request), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            content = json.loads(response.read())
        finally:
            connection.close()
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimitedError(content["error"]["message"])
        if response.status != HTTPStatus.OK:
            raise LlmError(f"status {response.status}: {content['error']['message']}")
        return Reply(content["choices"][0]["message"], content["usage"]["completion_tokens"])
