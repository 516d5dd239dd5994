"""Real servers on loopback, in threads of this process."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """Stops when it is told to, not at the next tick of a clock."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._running = Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes the headers that every response has
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._running.set()
        await self._stop.wait()

    def stop(self) -> None:
        assert self._running.wait(20), "the server never started"
        self._loop.call_soon_threadsafe(self._stop.set)


@contextmanager
def uvicorn_server(app: Any, **options: Any) -> Iterator[tuple[str, int]]:
    """Serve an ASGI application; yield host and port."""
    server = Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5, **options))
    # It listens from here on; whoever connects before the server has started waits in the queue.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield "127.0.0.1", listening.getsockname()[1]
        finally:
            server.stop()
            thread.join()
