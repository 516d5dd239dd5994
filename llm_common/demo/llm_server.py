"""An HTTP server that speaks OpenAI's chat completions, with the bad days that such services have.

It answers ``POST /v1/chat/completions`` on the loopback interface. Now and then it is slow, has too many requests
(status 429) or breaks (status 500).
"""

import json
import logging
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from socketserver import TCPServer
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Self

from llm_common.demo.llm_model import next_message, tokens

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Moods:
    """How often the server has which trouble, as shares from 0 to 1, and how long it thinks, in seconds."""

    slow: float = 0.06
    rate_limited: float = 0.05
    broken: float = 0.04
    thinking: tuple[float, float] = (0.005, 0.06)
    slow_thinking: tuple[float, float] = (0.4, 1.4)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    timeout = 5.0  # seconds without a byte, after which a client is given up

    def do_POST(self) -> None:
        try:
            request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            message = next_message(request["messages"], request.get("tools", ()))
        except (AttributeError, KeyError, TypeError, ValueError):
            self._answer_error(HTTPStatus.BAD_REQUEST, "the body is no chat completion request")
            return
        if self.path != PATH:
            self._answer_error(HTTPStatus.NOT_FOUND, f"the only path is {PATH}")
            return
        trouble = self.server.think()
        if trouble is not None:
            self._answer_error(trouble, trouble.phrase)
            return
        spoken = message["content"] or message["tool_calls"][0]["function"]["arguments"]
        self._answer(
            HTTPStatus.OK,
            {
                "object": "chat.completion",
                "model": request.get("model", ""),
                "choices": [{"index": 0, "message": message}],
                "usage": {
                    "prompt_tokens": sum(tokens(str(one["content"])) for one in request["messages"]),
                    "completion_tokens": tokens(spoken),
                },
            },
        )

    def _answer_error(self, status: HTTPStatus, message: str) -> None:
        self._answer(status, {"error": {"message": message}})

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing: the terminal belongs to the demo's own screen."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for requests under way and leaves no thread behind
    request_queue_size = 64

    def __init__(self, chance: Random, moods: Moods, outage: float) -> None:
        self.closing = Event()
        self._up_from = monotonic() + outage
        self._chance = chance
        self._moods = moods
        self._lock = Lock()
        super().__init__((ADDRESS, 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look up the host's name, which can take seconds
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        logger.debug("a client of the LLM server went away", exc_info=sys.exc_info())

    def think(self) -> HTTPStatus | None:
        """Take as long as the mood of the moment has it, and return the trouble met, if any."""
        if monotonic() < self._up_from:
            return HTTPStatus.SERVICE_UNAVAILABLE
        moods = self._moods
        with self._lock:
            slow, fate = self._chance.random() < moods.slow, self._chance.random()
            seconds = self._chance.uniform(*(moods.slow_thinking if slow else moods.thinking))
        self.closing.wait(seconds)
        if fate < moods.rate_limited:
            return HTTPStatus.TOO_MANY_REQUESTS
        if fate < moods.rate_limited + moods.broken:
            return HTTPStatus.INTERNAL_SERVER_ERROR
        return None


class LlmServer:
    """The running server, on any free port of the loopback interface. Use it in a ``with`` statement."""

    def __init__(self, chance: Random, moods: Moods | None = None, outage: float = 0.0) -> None:
        """Start to listen. ``chance`` decides which request meets which of the ``moods``.

        For the first ``outage`` seconds every request meets an error instead.

        Raises :class:`OSError` where no port can be had.
        """
        self._server = _Server(chance, Moods() if moods is None else moods, outage)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="demo LLM server")
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Answer the requests under way without further thought, then stop; no thread is left."""
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
