"""A server that answers as OpenAI's chat completions do, whole or in server-sent events."""

import json
from threading import Event

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
