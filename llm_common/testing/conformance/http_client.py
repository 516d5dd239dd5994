"""The contract of everything that counts the requests which an application sends, as a suite of tests.

An integration's author subclasses :class:`HttpClientContract` and says how a tracked client is made and how it sends a
request; the suite answers from a server of its own, which can also misbehave, and looks at what was recorded.
"""

import asyncio
import gzip
import inspect
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import pytest

from llm_common.contract import HttpExchange, HttpSeries
from llm_common.dispatch import override
from llm_common.hookspecs import hookimpl
from llm_common.http_labels import TELEGRAM
from llm_common.testing.conformance.recording import HELD, PATIENCE, Recording, recording

APP_TYPE = "billing_api"
"""The ``app_type`` of most of the suite's requests."""

SHORT = 0.3
"""The timeout, in seconds, of requests that are to run into it."""

PLAIN = b"plain text, over and over. " * 200
"""A body that is worth compressing."""


class Request(NamedTuple):
    """One request, as the suite's server received it."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Wire:
    """The server's end of a connection, on which an answer is written byte by byte."""

    def __init__(self, connection: socket.socket, file: Any) -> None:
        self._connection = connection
        self._file = file

    def send(self, *parts: bytes) -> None:
        """Send ``parts`` at once."""
        self._connection.sendall(b"".join(parts))

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one is the last."""
        self.send(b"%x\r\n" % len(data), data, b"\r\n")

    def close(self) -> None:
        """Close the connection in an orderly way."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break the connection."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()  # which holds the socket open too
        self._connection.close()

    def hang(self) -> None:
        """Send nothing more, until the client closes the connection."""
        with suppress(OSError):
            self._file.read()


Answer = Callable[[Request, Wire], object]
"""Answers one request. What it leaves open serves the next request too."""


def answer(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None) -> Answer:
    """Return an answer with ``body``, sent at once; ``length`` is what its Content-Length says where that isn't so."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    head = "\r\n".join(lines).encode()
    return lambda request, wire: wire.send(head, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
"""The head of an answer whose body comes in chunks."""


class Server:
    """A server on a port of its own that answers as a test says. A context manager; leaving it closes all."""

    def __init__(self) -> None:
        self.answer: Answer = answer(b"hello")
        self.requests: list[Request] = []
        """What was received, completely, oldest first."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = Lock()
        self._connections: list[socket.socket] = []
        self._threads = [Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._threads[0].join(PATIENCE)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(PATIENCE)

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def url(self, target: str = "/", credentials: str = "") -> str:
        """Return a URL of this server; ``credentials`` is what stands before the host, with its ``@``."""
        return f"http://{credentials}127.0.0.1:{self.port}{target}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = Thread(target=self._serve, args=(connection,))
                self._connections.append(connection)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rb") as file:
            while request := self._received(file):
                with self._lock:
                    self.requests.append(request)
                self.answer(request, Wire(connection, file))

    @staticmethod
    def _received(file: Any) -> Request | None:
        """Read one request; ``None`` where there is no more."""
        words = file.readline().decode("latin-1").split(" ")
        if len(words) < 3:
            return None
        headers = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(file.readline(), 16):
                body += file.read(size)
                file.readline()
            file.readline()
        else:
            body = file.read(int(headers.get("content-length", 0)))
        return Request(words[0], words[1], headers, body)


@dataclass(frozen=True)
class Sending:
    """One request that a test wants sent."""

    url: str
    method: str = "GET"
    body: Any = None
    """``None``, bytes, or pieces of bytes in a generator: an asynchronous one for an asynchronous client."""
    timeout: float = field(default=PATIENCE)
    """After how many seconds without an answer the client gives up."""


class Interruption(BaseException):
    """What a test throws into a synchronous client, as a signal handler might."""


class _FaultyBackend:
    """A backend whose every measurement fails."""

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries) -> "_FaultyBackend":
        return self

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        raise LookupError("the backend is broken")


_Case = Callable[[Any, Server, Recording], Coroutine[Any, Any, None]]


def _case(function: _Case) -> Callable[[Any, Server, Recording], None]:
    """Make a coroutine a test, which pytest runs without a plugin."""

    def test(self: Any, server: Server, recorded: Recording) -> None:
        async def within_patience() -> None:
            async with asyncio.timeout(3 * PATIENCE):
                await function(self, server, recorded)

        asyncio.run(within_patience())

    test.__name__, test.__qualname__, test.__doc__ = function.__name__, function.__qualname__, function.__doc__
    return test


class HttpClientContract(ABC):
    """Subclass it, and define :meth:`client` and :meth:`send`; pytest does the rest.

    A subclass for a synchronous library::

        class TestLibrary(HttpClientContract):
            def client(self, app_type):
                return library.Client(transport=TrackedTransport(app_type=app_type))

            def send(self, client, sending):
                with client.stream(
                    sending.method, sending.url, body=sending.body, timeout=sending.timeout, follow_redirects=True
                ) as response:
                    yield from response.iter_bytes()

    For an asynchronous one, ``send`` is an ``async def`` that yields, and ``client`` returns an asynchronous context
    manager.
    """

    @abstractmethod
    def client(self, app_type: str) -> Any:
        """Return a tracked client, as the (asynchronous) context manager that closes it."""

    @abstractmethod
    def send(self, client: Any, sending: Sending) -> Any:
        """Send a request, follow redirects, and yield the response's body, decompressed, in the pieces that come.

        A generator, or an asynchronous one, which closes the response when it is closed itself. Exceptions of the
        library pass. A status of 400 or more is no exception.
        """

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        """Serve on loopback for the length of a test."""
        with Server() as server:
            yield server

    @pytest.fixture
    def recorded(self) -> Iterator[Recording]:
        """Record for the length of a test."""
        with recording() as recorded:
            yield recorded

    @property
    def asynchronous(self) -> bool:
        """Whether :meth:`send` is asynchronous."""
        return inspect.isasyncgenfunction(self.send)

    @asynccontextmanager
    async def opened(self, app_type: str = APP_TYPE) -> AsyncIterator[Any]:
        """Open a tracked client, of either kind."""
        manager = self.client(app_type)
        if isinstance(manager, AbstractAsyncContextManager):
            async with manager as client:
                yield client
        else:
            with manager as client:
                yield client

    def pieces(self, client: Any, sending: Sending) -> AsyncGenerator[bytes]:
        """Send a request with a client of either kind, and yield the body."""
        sent = self.send(client, sending)
        return sent if isinstance(sent, AsyncGenerator) else _asynchronous(sent)

    async def read(self, client: Any, sending: Sending) -> bytes:
        """Send a request with a client of either kind, and return the body."""
        return b"".join([piece async for piece in self.pieces(client, sending)])

    async def fetch(self, sending: Sending, app_type: str = APP_TYPE) -> bytes:
        """Send a request with a client of its own, and return the body."""
        async with self.opened(app_type) as client:
            return await self.read(client, sending)

    async def failure(self, sending: Sending) -> BaseException:
        """Send a request that fails, and return the exception."""
        async with self.opened() as client:
            with pytest.raises(Exception) as caught:
                await self.read(client, sending)
        return caught.value

    def upload(
        self, parts: Iterable[bytes], then: BaseException | None = None
    ) -> Iterable[bytes] | AsyncIterable[bytes]:
        """Return a body that comes in pieces, for a client of this kind, and may end in an exception."""

        def synchronous() -> Generator[bytes]:
            yield from parts
            if then is not None:
                raise then

        async def asynchronous() -> AsyncGenerator[bytes]:
            for part in synchronous():
                yield part

        return asynchronous() if self.asynchronous else synchronous()

    # What every exchange has

    @_case
    async def test_a_whole_response(self, server: Server, recorded: Recording) -> None:
        assert await self.fetch(Sending(server.url("/v1/models"))) == b"hello"
        assert recorded.one() == HttpExchange("GET", "200", "v1/models", APP_TYPE, 0, 5)
        assert recorded.one().seconds > 0
        assert not recorded.others

    @_case
    async def test_a_request_with_a_body(self, server: Server, recorded: Recording) -> None:
        await self.fetch(Sending(server.url("/v1/files"), "POST", PLAIN))
        assert server.requests[0].body == PLAIN
        assert recorded.one() == HttpExchange("POST", "200", "v1/files", APP_TYPE, len(PLAIN), 5)

    @_case
    async def test_a_request_whose_body_comes_in_pieces(self, server: Server, recorded: Recording) -> None:
        await self.fetch(Sending(server.url("/v1/files"), "PUT", self.upload([b"one", b"three", b"x" * 100_000])))
        assert len(server.requests[0].body) == 100_008
        assert recorded.one() == HttpExchange("PUT", "200", "v1/files", APP_TYPE, 100_008, 5)

    @_case
    async def test_a_response_without_a_body(self, server: Server, recorded: Recording) -> None:
        server.answer = answer()
        assert await self.fetch(Sending(server.url(), "DELETE")) == b""
        assert recorded.one() == HttpExchange("DELETE", "200", "/", APP_TYPE, 0, 0)

    @_case
    async def test_an_error_status(self, server: Server, recorded: Recording) -> None:
        server.answer = answer(b"no such model", "404 Not Found")
        assert await self.fetch(Sending(server.url("/v1/models/7"))) == b"no such model"
        assert recorded.one() == HttpExchange("GET", "404", "v1/models/{int}", APP_TYPE, 0, 13)

    @_case
    async def test_requests_one_after_another(self, server: Server, recorded: Recording) -> None:
        async with self.opened() as client:
            for length in range(1, 4):
                await self.read(client, Sending(server.url("/echo"), "POST", b"x" * length))
        sizes = [(exchange.request_bytes, exchange.response_bytes) for exchange in recorded.ended(3)]
        assert sizes == [(1, 5), (2, 5), (3, 5)]

    @_case
    async def test_requests_at_the_same_time(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: answer(2 * request.body)(request, wire)
        async with self.opened() as client:

            def one(length: int) -> Coroutine[Any, Any, bytes]:
                return self.read(client, Sending(server.url("/echo"), "POST", b"x" * length))

            def in_a_thread(length: int) -> bytes:
                return asyncio.run(one(length))

            lengths = range(1, 21)
            if self.asynchronous:
                bodies = await asyncio.gather(*map(one, lengths))
            else:
                bodies = await asyncio.gather(*(asyncio.to_thread(in_a_thread, length) for length in lengths))
        assert sorted(map(len, bodies)) == [2 * length for length in lengths]
        sizes = sorted((exchange.request_bytes, exchange.response_bytes) for exchange in recorded.ended(20))
        assert sizes == [(length, 2 * length) for length in lengths]

    # Labels

    @_case
    async def test_no_query_and_no_credentials_in_a_label(self, server: Server, recorded: Recording) -> None:
        url = server.url("/users/17/chats?token=hidden&to=5#hidden", credentials="someone:hidden@")
        await self.fetch(Sending(url))
        assert server.requests[0].target.startswith("/users/17/chats?token=hidden")
        assert recorded.one() == HttpExchange("GET", "200", "users/{int}/chats", APP_TYPE, 0, 5)

    @_case
    async def test_no_bot_token_in_a_label(self, server: Server, recorded: Recording) -> None:
        target = "/bot123456789:AAE-hidden_Hidden/sendMessage?chat_id=1"
        await self.fetch(Sending(server.url(target), "POST", b"{}"), TELEGRAM)
        assert urlsplit(server.requests[0].target).path in {
            target.split("?", maxsplit=1)[0],
            target.split("?", maxsplit=1)[0].replace(":", "%3A"),
        }
        assert recorded.one() == HttpExchange("POST", "200", "sendMessage", TELEGRAM, 2, 5)

    @_case
    async def test_an_unknown_method(self, server: Server, recorded: Recording) -> None:
        await self.fetch(Sending(server.url("/pot"), "BREW"))
        assert server.requests[0].method == "BREW"
        assert recorded.one() == HttpExchange("_OTHER", "200", "pot", APP_TYPE, 0, 5)

    # Bodies as the wire has them

    @_case
    async def test_a_chunked_body(self, server: Server, recorded: Recording) -> None:
        def chunks(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            for part in (b"one", b"three", b"x" * 100_000, b""):
                wire.chunk(part)

        server.answer = chunks
        assert len(await self.fetch(Sending(server.url()))) == 100_008
        assert recorded.one().response_bytes == 100_008

    @_case
    async def test_a_compressed_body(self, server: Server, recorded: Recording) -> None:
        packed = gzip.compress(PLAIN)
        server.answer = answer(packed, "200 OK", "Content-Encoding: gzip")
        assert await self.fetch(Sending(server.url())) == PLAIN
        assert recorded.one().response_bytes == len(packed)

    @_case
    async def test_a_compressed_body_in_chunks(self, server: Server, recorded: Recording) -> None:
        packed = gzip.compress(PLAIN)

        def chunks(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"))
            for part in (packed[:10], packed[10:], b""):
                wire.chunk(part)

        server.answer = chunks
        assert await self.fetch(Sending(server.url())) == PLAIN
        assert recorded.one().response_bytes == len(packed)

    @_case
    async def test_a_body_that_ends_with_the_connection(self, server: Server, recorded: Recording) -> None:
        def until_closed(request: Request, wire: Wire) -> None:
            wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", PLAIN)
            wire.close()

        server.answer = until_closed
        assert await self.fetch(Sending(server.url())) == PLAIN
        assert recorded.one() == HttpExchange("GET", "200", "/", APP_TYPE, 0, len(PLAIN))

    @_case
    async def test_head_has_no_body_whatever_its_length_says(self, server: Server, recorded: Recording) -> None:
        server.answer = answer(length=1000)
        assert await self.fetch(Sending(server.url(), "HEAD")) == b""
        assert recorded.one() == HttpExchange("HEAD", "200", "/", APP_TYPE, 0, 0)

    @_case
    async def test_204_has_no_body(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert await self.fetch(Sending(server.url(), "DELETE")) == b""
        assert recorded.one() == HttpExchange("DELETE", "204", "/", APP_TYPE, 0, 0)

    @_case
    async def test_304_has_no_body_whatever_its_length_says(self, server: Server, recorded: Recording) -> None:
        server.answer = answer(b"", "304 Not Modified", length=1000)
        assert await self.fetch(Sending(server.url())) == b""
        assert recorded.one() == HttpExchange("GET", "304", "/", APP_TYPE, 0, 0)

    @_case
    async def test_an_informational_response_is_not_the_response(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
        assert await self.fetch(Sending(server.url())) == b"ok"
        assert recorded.one() == HttpExchange("GET", "200", "/", APP_TYPE, 0, 2)

    # Streams

    @_case
    async def test_a_stream_is_recorded_when_it_ends(self, server: Server, recorded: Recording) -> None:
        go_on = Event()

        def slowly(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            go_on.wait(PATIENCE)
            wire.chunk(b"second")
            wire.chunk(b"")

        server.answer = slowly
        began = perf_counter()
        async with self.opened() as client:
            pieces = self.pieces(client, Sending(server.url("/v1/chat")))
            assert await anext(pieces) == b"first"
            assert recorded.exchanges == ()
            await asyncio.to_thread(go_on.wait, HELD)
            go_on.set()
            assert b"".join([piece async for piece in pieces]) == b"second"
        exchange = recorded.one()
        assert exchange == HttpExchange("GET", "200", "v1/chat", APP_TYPE, 0, 11)
        assert HELD <= exchange.seconds <= perf_counter() - began, "the duration, in seconds, until the last byte"

    @_case
    async def test_a_stream_that_the_caller_closes_early(self, server: Server, recorded: Recording) -> None:
        def endlessly(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            wire.hang()

        server.answer = endlessly
        async with self.opened() as client:
            pieces = self.pieces(client, Sending(server.url("/v1/chat")))
            assert await anext(pieces) == b"first"
            assert recorded.exchanges == ()
            await pieces.aclose()
            assert recorded.one() == HttpExchange("GET", "200", "v1/chat", APP_TYPE, 0, 5)

    @_case
    async def test_a_stream_that_the_caller_leaves_by_an_exception(self, server: Server, recorded: Recording) -> None:
        def endlessly(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            wire.hang()

        server.answer = endlessly
        async with self.opened() as client:
            pieces = self.pieces(client, Sending(server.url()))
            await anext(pieces)
            own = KeyError("the caller's own")
            with pytest.raises(KeyError) as caught:
                await pieces.athrow(own)
        assert caught.value is own
        assert recorded.one() == HttpExchange("GET", "200", "/", APP_TYPE, 0, 5)

    # Bodies that break off

    @_case
    async def test_a_body_that_is_shorter_than_announced(self, server: Server, recorded: Recording) -> None:
        def short(request: Request, wire: Wire) -> None:
            answer(b"only this", length=100)(request, wire)
            wire.close()

        server.answer = short
        await self.failure(Sending(server.url()))
        assert recorded.one() == HttpExchange("GET", "error", "/", APP_TYPE, 0, 9)

    @_case
    async def test_a_chunked_body_that_breaks_off_between_chunks(self, server: Server, recorded: Recording) -> None:
        def short(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            wire.close()

        server.answer = short
        await self.failure(Sending(server.url()))
        assert recorded.one() == HttpExchange("GET", "error", "/", APP_TYPE, 0, 5)

    @_case
    async def test_a_chunked_body_that_breaks_off_in_a_chunk(self, server: Server, recorded: Recording) -> None:
        def short(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED, b"a\r\nfirs")
            wire.close()

        server.answer = short
        await self.failure(Sending(server.url()))
        assert recorded.one() == HttpExchange("GET", "error", "/", APP_TYPE, 0, 4)

    @_case
    async def test_a_connection_that_is_reset_while_the_body_is_read(self, server: Server, recorded: Recording) -> None:
        go_on = Event()

        def resets(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            go_on.wait(PATIENCE)
            wire.reset()

        server.answer = resets
        async with self.opened() as client:
            pieces = self.pieces(client, Sending(server.url()))
            await anext(pieces)
            go_on.set()
            with pytest.raises(Exception):
                await anext(pieces)
        assert recorded.one() == HttpExchange("GET", "error", "/", APP_TYPE, 0, 5)

    @_case
    async def test_a_timeout_while_the_body_is_read(self, server: Server, recorded: Recording) -> None:
        def stops(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            wire.hang()

        server.answer = stops
        await self.failure(Sending(server.url(), timeout=SHORT))
        assert recorded.one() == HttpExchange("GET", "timeout", "/", APP_TYPE, 0, 5)

    @_case
    async def test_a_cancellation_while_the_body_is_read(self, server: Server, recorded: Recording) -> None:
        if not self.asynchronous:
            pytest.skip("what a synchronous client reads can't be cancelled")

        def stops(request: Request, wire: Wire) -> None:
            wire.send(CHUNKED)
            wire.chunk(b"first")
            wire.hang()

        server.answer = stops
        async with self.opened() as client:
            reading = asyncio.Event()

            async def read() -> None:
                async for _ in self.pieces(client, Sending(server.url())):
                    reading.set()

            task = asyncio.create_task(read())
            await reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert recorded.one() == HttpExchange("GET", "cancelled", "/", APP_TYPE, 0, 5)

    # No response

    @_case
    async def test_a_refused_connection(self, server: Server, recorded: Recording) -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))  # and doesn't listen
            await self.failure(Sending(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/models", "POST", b"lost"))
        assert recorded.one() == HttpExchange("POST", "error", "v1/models", APP_TYPE, 0, 0)

    @_case
    async def test_a_connection_that_is_closed_without_a_response(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.close()
        await self.failure(Sending(server.url(), "POST", b"unheard"))
        assert recorded.one() == HttpExchange("POST", "error", "/", APP_TYPE, 7, 0)

    @_case
    async def test_a_response_that_is_no_http(self, server: Server, recorded: Recording) -> None:
        def garbage(request: Request, wire: Wire) -> None:
            wire.send(b"garbage\r\n\r\n")
            wire.close()

        server.answer = garbage
        await self.failure(Sending(server.url(), "POST", b"misread"))
        assert recorded.one() == HttpExchange("POST", "error", "/", APP_TYPE, 7, 0)

    @_case
    async def test_a_timeout_without_a_response(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.hang()
        await self.failure(Sending(server.url(), "POST", b"unanswered", timeout=SHORT))
        assert recorded.one() == HttpExchange("POST", "timeout", "/", APP_TYPE, 10, 0)

    @_case
    async def test_a_cancellation_without_a_response(self, server: Server, recorded: Recording) -> None:
        reached = Event()

        def waits(request: Request, wire: Wire) -> None:
            reached.set()
            wire.hang()

        server.answer = waits
        async with self.opened() as client:
            if self.asynchronous:
                task = asyncio.create_task(self.read(client, Sending(server.url(), "POST", b"unheard")))
                await asyncio.to_thread(reached.wait, PATIENCE)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                interruption = Interruption()
                with pytest.raises(Interruption) as caught:
                    await self.read(
                        client, Sending(server.url(), "POST", self.upload([b"unheard", b""], then=interruption))
                    )
                assert caught.value is interruption
        assert recorded.one() == HttpExchange("POST", "cancelled", "/", APP_TYPE, 7, 0)

    # Redirects

    @_case
    async def test_each_redirect_is_an_exchange(self, server: Server, recorded: Recording) -> None:
        server.answer = _redirecting("302 Found")
        assert await self.fetch(Sending(server.url("/here"))) == b"arrived"
        assert recorded.ended(2) == [
            HttpExchange("GET", "302", "here", APP_TYPE, 0, 5),
            HttpExchange("GET", "200", "there", APP_TYPE, 0, 7),
        ]

    @_case
    async def test_a_redirect_that_sends_the_body_again(self, server: Server, recorded: Recording) -> None:
        server.answer = _redirecting("307 Temporary Redirect")
        assert await self.fetch(Sending(server.url("/here"), "POST", b"twice")) == b"arrived"
        assert [request.body for request in server.requests] == [b"twice", b"twice"]
        assert recorded.ended(2) == [
            HttpExchange("POST", "307", "here", APP_TYPE, 5, 5),
            HttpExchange("POST", "200", "there", APP_TYPE, 5, 7),
        ]

    @_case
    async def test_a_redirect_after_which_the_body_is_left_out(self, server: Server, recorded: Recording) -> None:
        server.answer = _redirecting("303 See Other")
        assert await self.fetch(Sending(server.url("/here"), "POST", b"once")) == b"arrived"
        assert recorded.ended(2) == [
            HttpExchange("POST", "303", "here", APP_TYPE, 4, 5),
            HttpExchange("GET", "200", "there", APP_TYPE, 0, 7),
        ]

    @_case
    async def test_a_redirect_to_where_nobody_listens(self, server: Server, recorded: Recording) -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            server.answer = _redirecting("302 Found", f"http://127.0.0.1:{deaf.getsockname()[1]}/there")
            await self.failure(Sending(server.url("/here")))
        assert recorded.ended(2) == [
            HttpExchange("GET", "302", "here", APP_TYPE, 0, 5),
            HttpExchange("GET", "error", "there", APP_TYPE, 0, 0),
        ]

    @_case
    async def test_redirects_without_end(self, server: Server, recorded: Recording) -> None:
        server.answer = _redirecting("302 Found", "/here")
        await self.failure(Sending(server.url("/here")))
        exchanges = recorded.ended(len(server.requests))
        assert set(exchanges) == {HttpExchange("GET", "302", "here", APP_TYPE, 0, 5)}

    @_case
    async def test_a_redirect_that_says_nowhere_to_go(self, server: Server, recorded: Recording) -> None:
        server.answer = answer(b"moved", "302 Found")
        assert await self.fetch(Sending(server.url("/here"))) == b"moved"
        assert recorded.one() == HttpExchange("GET", "302", "here", APP_TYPE, 0, 5)

    # Backends that fail

    @_case
    async def test_a_broken_backend_is_not_the_application_s_problem(self, server: Server, recorded: Recording) -> None:
        with override(backends=(_FaultyBackend(),), strict=False):
            assert await self.fetch(Sending(server.url(), "POST", b"body")) == b"hello"
            server.answer = lambda request, wire: wire.close()
            await self.failure(Sending(server.url(), "POST", b"body"))

    @_case
    async def test_in_strict_mode_a_broken_backend_raises(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        with override(backends=(_FaultyBackend(),), strict=True), pytest.raises(LookupError, match="backend is broken"):
            await self.fetch(Sending(server.url()))

    @_case
    async def test_no_fault_of_a_backend_replaces_an_exception(self, server: Server, recorded: Recording) -> None:
        server.answer = lambda request, wire: wire.close()
        with override(backends=(_FaultyBackend(),), strict=True):
            assert not isinstance(await self.failure(Sending(server.url(), "POST", b"body")), LookupError)


async def _asynchronous(pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
    """Pass on what a synchronous generator yields, and what is thrown into it."""
    try:
        for piece in pieces:
            try:
                yield piece
            except Exception as thrown:
                pieces.throw(thrown)  # which raises it again
    finally:
        pieces.close()


def _redirecting(status: str, location: str = "/there") -> Answer:
    """Return an answer that redirects ``/here``, and answers everything else."""
    redirect, arrived = answer(b"moved", status, f"Location: {location}"), answer(b"arrived")
    return lambda request, wire: (redirect if request.target == "/here" else arrived)(request, wire)


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Serve ``answer`` on loopback for the length of a ``with`` block."""
    with Server() as server:
        server.answer = answer
        yield server
