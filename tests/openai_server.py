"""Servers that answer as OpenAI does, whole or in server-sent events."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any

from llm_common.testing.conformance.http_client import CHUNKED, Request, Wire, answer
from llm_common.testing.conformance.recording import PATIENCE

WORDS = ("Your", " order", " is", " on", " its", " way")
"""What the model says, token by token."""


class ChatServer:
    """Answers each request; a streamed answer waits for :attr:`go_on` before its last token."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.sent = 0
        """The bytes of all bodies that were sent."""

    def __call__(self, request: Request, wire: Wire) -> None:
        if json.loads(request.body).get("stream"):
            self.stream(wire)
        else:
            message = {"content": "".join(WORDS)}
            body = self.completion("chat.completion", {"message": message, "finish_reason": "stop"})
            self.sent += len(body)
            answer(body, "200 OK", "Content-Type: application/json")(request, wire)

    def stream(self, wire: Wire) -> None:
        wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        for number, word in enumerate(WORDS):
            if number == len(WORDS) - 1:
                self.go_on.wait(PATIENCE)
            self.event(wire, self.completion("chat.completion.chunk", {"delta": {"content": word}}))
        self.event(wire, b"[DONE]")
        wire.chunk(b"")

    def event(self, wire: Wire, data: bytes) -> None:
        event = b"data: " + data + b"\n\n"
        self.sent += len(event)
        wire.chunk(event)

    @staticmethod
    def completion(kind: str, choice: dict[str, object]) -> bytes:
        whole = {"id": "1", "object": kind, "created": 1, "model": "small", "choices": [{"index": 0, **choice}]}
        return json.dumps(whole).encode()


class Turn:
    """What the model does when it is asked once."""


@dataclass(frozen=True)
class Say(Turn):
    """It says some words."""

    words: tuple[str, ...] = WORDS


@dataclass(frozen=True)
class Use(Turn):
    """It calls a tool."""

    tool: str
    arguments: dict[str, object]


@dataclass(frozen=True)
class Fail(Turn):
    """The server refuses, or answers what is no JSON."""

    status: str = "500 Internal Server Error"
    body: bytes = b'{"error": {"message": "the model is overloaded"}}'


@dataclass(frozen=True)
class Break(Turn):
    """The connection breaks after the first word, of a stream, or before the answer."""


@dataclass(frozen=True)
class Hang(Turn):
    """Nothing comes any more after ``words`` words, until the client closes the connection."""

    words: int = 0


@dataclass(frozen=True)
class Overload(Turn):
    """The model gives up, of which the Responses API tells by an event."""


GIVEN, SAID = 11, 7
"""How many tokens every answer tells it has cost."""


class ModelServer:
    """Answers ``/chat/completions`` and ``/responses`` as OpenAI does, turn by turn, with usage.

    A turn is taken for each request; after the last of them the model only says :data:`WORDS`.
    """

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque()
        self.hanging = Event()
        """Set when a request is left without an answer."""

    def script(self, *turns: Turn) -> None:
        """Say what the model does next."""
        self.turns.extend(turns)

    def __call__(self, request: Request, wire: Wire) -> None:
        asked = json.loads(request.body)
        turn = self.turns.popleft() if self.turns else Say()
        if isinstance(turn, Fail):
            answer(turn.body, turn.status, "Content-Type: application/json", "Retry-After-Ms: 1")(request, wire)
        elif asked.get("stream"):
            self.stream(asked, turn, wire, responses="/responses" in request.target)
        elif isinstance(turn, Break):
            wire.reset()
        elif isinstance(turn, Hang):
            self.hang(wire)
        else:
            body = self.response(asked, turn) if "/responses" in request.target else self.completion(asked, turn)
            answer(json.dumps(body).encode(), "200 OK", "Content-Type: application/json")(request, wire)

    def hang(self, wire: Wire) -> None:
        self.hanging.set()
        wire.hang()

    def stream(self, asked: dict[str, Any], turn: Turn, wire: Wire, *, responses: bool) -> None:
        wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        events = list(self.response_events(asked, turn) if responses else self.chunks(asked, turn))
        first = next((number for number, event in enumerate(events) if WORDS[0] in json.dumps(event)), 0)
        for number, event in enumerate(events):
            if isinstance(turn, Hang) and number == turn.words:
                return self.hang(wire)
            if isinstance(turn, Break) and number > first:
                return wire.close()
            kind = f"event: {event['type']}\n" if responses else ""
            wire.chunk(f"{kind}data: {json.dumps(event)}\n\n".encode())
        if not responses:
            wire.chunk(b"data: [DONE]\n\n")
        wire.chunk(b"")
        return None

    # Chat completions

    @staticmethod
    def completion(asked: dict[str, Any], turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        reason = "stop"
        if isinstance(turn, Use):
            reason = "tool_calls"
            message["tool_calls"] = [tool_call(turn)]
        else:
            message["content"] = "".join(words_of(turn))
        choice = {"index": 0, "message": message, "finish_reason": reason}
        usage = {"prompt_tokens": GIVEN, "completion_tokens": SAID, "total_tokens": GIVEN + SAID}
        return {**WHOLE, "object": "chat.completion", "model": asked["model"], "choices": [choice], "usage": usage}

    @staticmethod
    def chunks(asked: dict[str, Any], turn: Turn) -> Iterator[dict[str, Any]]:
        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        head = {**WHOLE, "object": "chat.completion.chunk", "model": asked["model"]}
        if isinstance(turn, Use):
            yield chunk({"role": "assistant", "tool_calls": [{"index": 0, **tool_call(turn)}]})
            yield chunk({}, "tool_calls")
        else:
            for word in words_of(turn):
                yield chunk({"role": "assistant", "content": word})
            yield chunk({}, "stop")
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": GIVEN, "completion_tokens": SAID, "total_tokens": GIVEN + SAID}
            yield {**head, "choices": [], "usage": usage}

    # Responses

    @staticmethod
    def output(turn: Turn) -> dict[str, Any]:
        if isinstance(turn, Use):
            arguments = json.dumps(turn.arguments)
            call = {"call_id": "call_1", "name": turn.tool, "arguments": arguments}
            return {"type": "function_call", "id": "fc_1", "status": "completed", **call}
        text = {"type": "output_text", "text": "".join(words_of(turn)), "annotations": []}
        return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}

    def response(self, asked: dict[str, Any], turn: Turn, status: str = "completed") -> dict[str, Any]:
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        usage = {"input_tokens": GIVEN, "output_tokens": SAID, "total_tokens": GIVEN + SAID, **details}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": status,
            "model": asked["model"],
            "output": [self.output(turn)] if status == "completed" else [],
            "usage": usage if status == "completed" else None,
            "error": {"code": "server_error", "message": "the model is overloaded"} if status == "failed" else None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def response_events(self, asked: dict[str, Any], turn: Turn) -> Iterator[dict[str, Any]]:
        events: list[dict[str, Any]] = [{"type": "response.created", "response": self.response(asked, turn, "queued")}]
        at = {"output_index": 0}
        item = self.output(turn)
        if isinstance(turn, Use):
            events.append({"type": "response.output_item.added", "item": {**item, "arguments": ""}, **at})
            events.append(
                {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": item["arguments"], **at}
            )
        elif not isinstance(turn, Overload):
            events.append({"type": "response.output_item.added", "item": {**item, "content": []}, **at})
            part = {"item_id": "msg_1", "content_index": 0, **at}
            empty = {"type": "output_text", "text": "", "annotations": []}
            events.append({"type": "response.content_part.added", "part": empty, **part})
            for word in words_of(turn):
                events.append({"type": "response.output_text.delta", "delta": word, "logprobs": [], **part})
        if isinstance(turn, Overload):
            events.append({"type": "response.failed", "response": self.response(asked, turn, "failed")})
        else:
            events.append({"type": "response.output_item.done", "item": item, **at})
            events.append({"type": "response.completed", "response": self.response(asked, turn)})
        for number, event in enumerate(events):
            yield {**event, "sequence_number": number}


WHOLE: dict[str, Any] = {"id": "chatcmpl-1", "created": 1}


def words_of(turn: Turn) -> tuple[str, ...]:
    return turn.words if isinstance(turn, Say) else WORDS


def tool_call(turn: Use) -> dict[str, Any]:
    function = {"name": turn.tool, "arguments": json.dumps(turn.arguments)}
    return {"id": "call_1", "type": "function", "function": function}
