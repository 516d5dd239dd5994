"""What serves the shop's web application: uvicorn, in the event loop of the demo, and without a word of its own."""

import asyncio
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import uvicorn

from llm_common.demo.llm_server import ADDRESS

GRACE = 1
"""How many seconds requests are given to end when the server stops."""

# Without any handler, a logger would write its warnings on the demo's screen.
silence = logging.NullHandler()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # the demo handles them itself


class WebServer:
    """The server, on any free port of the loopback interface. Use it in an ``async with`` statement."""

    def __init__(self, app: Any) -> None:
        """Take a port. Raises :class:`OSError` where none can be had."""
        self._socket = socket.create_server((ADDRESS, 0))
        self.url = f"http://{ADDRESS}:{self._socket.getsockname()[1]}"
        """Where it listens, without a slash at the end."""
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                workers=1,  # whatever the environment says
                timeout_graceful_shutdown=GRACE,
            )
        )

    async def __aenter__(self) -> Self:
        logging.getLogger("uvicorn").addHandler(silence)
        # Whoever connects before it has started waits in the queue of the socket.
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._serving
        logging.getLogger("uvicorn").removeHandler(silence)
