"""The contract of everything that counts the requests which an application serves, as a suite of tests.

An integration's author subclasses :class:`HttpServerContract`, builds the application that it describes in his
framework, and serves it on a real server; the suite sends requests and looks at what was recorded.
"""

import gzip
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Event, Thread
from time import perf_counter
from typing import NamedTuple

import pytest

from llm_common.contract import HttpExchange
from llm_common.dispatch import override
from llm_common.hookspecs import hookimpl
from llm_common.testing.conformance.recording import HELD, PATIENCE, Recording, recording

HOME, TEMPLATE, MOUNTED = "/", "items/{item_id}", "mounted/sub/{name}"
COMPRESSED = gzip.compress(b"compressed " * 1000, mtime=0)
"""The body of ``/compressed``, which stands for any compression that the application does itself."""

PIECE = b"x" * 65536
"""What ``/endless`` sends again and again."""

MOST_PIECES = 4096
"""After how many pieces ``/endless`` ends all the same, so that a broken test ends too."""


class HandlerError(Exception):
    """What ``/fail`` and ``/late`` raise."""


class Stage:
    """Lets a test and a handler wait for each other."""

    def __init__(self) -> None:
        self._reached = Event()
        self._released = Event()

    def wait(self) -> None:
        """Wait in a handler until the test says go on. Blocks; in a coroutine call it in a thread."""
        self._reached.set()
        self._released.wait(PATIENCE)

    def await_handler(self) -> None:
        """Wait in a test until the handler waits."""
        assert self._reached.wait(PATIENCE), "the handler was never reached"

    def hold(self) -> None:
        """Let the handler wait for :data:`HELD` seconds more, by which durations can be told apart."""
        self._released.wait(HELD)

    def release(self) -> None:
        """Let the handler go on."""
        self._released.set()


class Answer(NamedTuple):
    """A response as the client read it, not decompressed."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpServerContract(ABC):
    """Subclass it, and define :meth:`serve` to serve an application with these routes.

    ================================ ========================================================================
    ``GET /``                        ``home``
    ``GET /items/{item_id}``         ``item`` and the id
    ``POST /echo``                   the request's body
    ``POST /ignore``                 204, without reading the body
    ``GET /stream``                  the pieces ``one`` and ``two``, with ``stage.wait()`` between them
    ``GET /slow``                    ``stage.wait()``, then ``slow``
    ``GET /endless``                 a stream of :data:`PIECE`, :data:`MOST_PIECES` times
    ``GET /fail``                    raises :class:`HandlerError`
    ``GET /late``                    a stream: the piece ``one``, then raises :class:`HandlerError`
    ``GET /teapot``                  418, ``teapot``
    ``GET /compressed``              :data:`COMPRESSED` with ``Content-Encoding: gzip``
    ``GET /mounted/sub/{name}``      ``mounted`` and the name, in an application of its own mounted at ``/mounted``
    ``GET /metrics``                 anything
    ================================ ========================================================================
    """

    notices_clients_that_wait = False
    """Whether the server tells an application that a client has gone while a handler waits, before anything is sent."""

    @abstractmethod
    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        """Serve the application until the ``with`` block ends; yield host and port. Not ``tracked``: without us."""

    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        """Return what the handlers of one test wait at."""
        stage = Stage()
        yield stage
        stage.release()

    @pytest.fixture
    def recorded(self) -> Iterator[Recording]:
        """Return what one test recorded."""
        with recording() as backend:
            yield backend

    @pytest.fixture
    def address(self, recorded: Recording, stage: Stage) -> Iterator[tuple[str, int]]:
        """Return where the tracked application is served."""
        with self.serve(stage, tracked=True) as address:
            yield address

    def request(
        self,
        address: tuple[str, int],
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request and read the whole response."""
        with connection(address) as client:
            client.request(method, path, body, headers or {}, encode_chunked=isinstance(body, Iterator))
            return read(client.getresponse())

    def test_the_root_is_a_slash(self, address: tuple[str, int], recorded: Recording) -> None:
        """The resource of the root; no body in, the body's bytes out."""
        answer = self.request(address, "GET", "/")
        assert answer.body == b"home"
        assert recorded.one() == HttpExchange("GET", "200", HOME, "app_api", 0, 4)
        assert recorded.one().seconds >= 0
        assert recorded.others == []

    def test_a_route_counts_by_its_template_whatever_the_query(
        self, address: tuple[str, int], recorded: Recording
    ) -> None:
        """Neither parameters nor the query reach a label."""
        for number in range(3):
            assert self.request(address, "GET", f"/items/{number}?token=secret{number}").status == 200
        assert set(map(labels, recorded.ended(3))) == {("GET", "200", TEMPLATE, "app_api")}

    @pytest.mark.parametrize("size", [0, 1, 100_000])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_bodies_count_by_their_real_bytes(
        self, address: tuple[str, int], recorded: Recording, size: int, chunked: bool
    ) -> None:
        """Both directions, with a length and chunked."""
        body = b"x" * size
        sent = iter([body[: size // 2], body[size // 2 :]]) if chunked and size > 1 else body
        answer = self.request(address, "POST", "/echo", sent)
        assert answer.body == body
        assert recorded.one() == HttpExchange("POST", "200", "echo", "app_api", size, size)

    def test_a_response_without_a_body_has_none(self, address: tuple[str, int], recorded: Recording) -> None:
        """Status 204, where the request's body may or may not have been read."""
        assert self.request(address, "POST", "/ignore", b"12345").status == 204
        exchange = recorded.one()
        assert labels(exchange) == ("POST", "204", "ignore", "app_api")
        assert exchange.request_bytes in {0, 5}
        assert exchange.response_bytes == 0

    def test_the_answer_to_head_has_no_bytes(self, address: tuple[str, int], recorded: Recording) -> None:
        """Whether the framework answers HEAD for every GET or not."""
        answer = self.request(address, "HEAD", "/items/1")
        exchange = recorded.one()
        assert (exchange.method, exchange.status, exchange.response_bytes) == ("HEAD", str(answer.status), 0)
        assert exchange.resource == TEMPLATE or answer.status == 405

    def test_compressed_bytes_count_as_they_are_sent(self, address: tuple[str, int], recorded: Recording) -> None:
        """Not as what they mean."""
        assert self.request(address, "GET", "/compressed").body == COMPRESSED
        assert recorded.one() == HttpExchange("GET", "200", "compressed", "app_api", 0, len(COMPRESSED))

    def test_a_stream_counts_when_its_last_byte_was_sent(
        self, address: tuple[str, int], recorded: Recording, stage: Stage
    ) -> None:
        """And not when it began."""
        began = perf_counter()
        with connection(address) as client:
            client.request("GET", "/stream")
            response = client.getresponse()
            assert response.read(3) == b"one"
            stage.await_handler()
            assert recorded.exchanges == ()
            stage.hold()
            stage.release()
            assert response.read() == b"two"
        exchange = recorded.one()
        assert exchange == HttpExchange("GET", "200", "stream", "app_api", 0, 6)
        assert HELD <= exchange.seconds <= perf_counter() - began, "the duration, in seconds, until the last byte"

    def test_any_status_counts_as_it_is(self, address: tuple[str, int], recorded: Recording) -> None:
        """One that no framework makes by itself."""
        assert self.request(address, "GET", "/teapot").status == 418
        assert recorded.one() == HttpExchange("GET", "418", "teapot", "app_api", 0, 6)

    def test_an_exception_counts_as_500_and_the_server_goes_on(
        self, address: tuple[str, int], recorded: Recording
    ) -> None:
        """The framework answers as it would without us."""
        assert self.request(address, "GET", "/fail").status == 500
        assert labels(recorded.one()) == ("GET", "500", "fail", "app_api")
        assert self.request(address, "GET", "/").status == 200
        recorded.ended(2)

    def test_an_exception_after_the_headers_counts_as_500(self, address: tuple[str, int], recorded: Recording) -> None:
        """Though the client has read another status."""
        with connection(address) as client:
            client.request("GET", "/late")
            response = client.getresponse()
            assert response.status == 200
            with suppress(HTTPException, OSError):  # the body breaks off, or looks complete
                response.read()
        exchange = recorded.one()
        assert labels(exchange) == ("GET", "500", "late", "app_api")
        assert exchange.response_bytes in {0, 3}

    def test_what_no_route_matches_is_one_resource(self, address: tuple[str, int], recorded: Recording) -> None:
        """However many paths somebody tries, also below a mount."""
        paths = [f"/nothing/{number}" for number in range(20)] + ["/mounted/nothing", "/..%2f..%2fetc", "/items"]
        for path in paths:
            assert self.request(address, "GET", path).status == 404
        assert set(map(labels, recorded.ended(len(paths)))) == {("GET", "404", "{unknown}", "app_api")}

    def test_a_method_that_the_route_does_not_have(self, address: tuple[str, int], recorded: Recording) -> None:
        """Counts with the route's template where the framework tells it."""
        assert self.request(address, "DELETE", "/items/1").status == 405
        exchange = recorded.one()
        assert (exchange.method, exchange.status) == ("DELETE", "405")
        assert exchange.resource in {TEMPLATE, "{unknown}"}

    def test_methods_that_no_standard_defines_are_one(self, address: tuple[str, int], recorded: Recording) -> None:
        """Whatever the server answers."""
        for method in ("BREW", "GETX", "PROPFIND"):
            self.request(address, method, "/items/1")
        assert {exchange.method for exchange in recorded.exchanges} <= {"_OTHER"}

    def test_a_mounted_application_counts_with_its_prefix(self, address: tuple[str, int], recorded: Recording) -> None:
        """One time, with one template."""
        answer = self.request(address, "GET", "/mounted/sub/engine")
        assert (answer.status, answer.body) == (200, b"mounted engine")
        assert recorded.one() == HttpExchange("GET", "200", MOUNTED, "app_api", 0, len(answer.body))

    def test_excluded_paths_are_not_counted(self, address: tuple[str, int], recorded: Recording) -> None:
        """Those of monitoring are by default."""
        assert self.request(address, "GET", "/metrics").status == 200
        assert self.request(address, "GET", "/").status == 200
        assert recorded.one().resource == HOME

    def test_a_connection_that_is_kept_counts_each_request(self, address: tuple[str, int], recorded: Recording) -> None:
        """Nothing of one request is left for the next."""
        with connection(address) as client:
            for body in (b"123", b"", b"1"):
                client.request("POST", "/echo", body)
                assert read(client.getresponse()).body == body
        # Sorted, since a server with threads may end one while it takes the next, if it keeps no connection after all.
        assert sorted(exchange.request_bytes for exchange in recorded.ended(3)) == [0, 1, 3]

    def test_a_client_that_goes_away_in_the_middle_counts_as_499(
        self, address: tuple[str, int], recorded: Recording
    ) -> None:
        """The response was on its way."""
        with connection(address) as client:
            client.request("GET", "/endless")
            response = client.getresponse()
            response.read(10)
            response.close()
        exchange = recorded.one()
        assert labels(exchange) == ("GET", "499", "endless", "app_api")
        assert exchange.response_bytes < MOST_PIECES * len(PIECE)

    def test_a_client_that_does_not_wait_for_the_response_counts_as_499(
        self, address: tuple[str, int], recorded: Recording, stage: Stage
    ) -> None:
        """Nothing was sent yet; the handler goes on to its end."""
        if not self.notices_clients_that_wait:
            pytest.skip("this server sees that a client has gone only when it writes")
        with connection(address) as client:
            client.request("GET", "/slow")
            stage.await_handler()
        self.request(address, "GET", "/")  # the server, which has one loop, has seen the end of the first connection
        stage.release()
        assert labels(recorded.ended(2)[1]) == ("GET", "499", "slow", "app_api")

    def test_odd_paths_are_one_series_more_at_most(self, address: tuple[str, int], recorded: Recording) -> None:
        """Text that isn't ASCII, and bytes that are no text."""
        for path in (
            "/items/%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82",
            "/items/%FF%FE",
            "/items/%00",
            "/items/a%0Ab",
            "/%",
        ):
            self.request(address, "GET", path)
        assert {exchange.resource for exchange in recorded.exchanges} <= {TEMPLATE, "{unknown}"}

    @pytest.mark.parametrize(
        "head",
        [
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n123",
            b"GET /items/1 HTTP/1.1\r\nHost: x\r\nX-Odd: \xff\xfe\xd0\xbf\r\n\r\n",
            b"GET /items/\xff\xfe\xd0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET //items//1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://x/items/1?q HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
        ids=["negative", "no-number", "too-great", "absurd", "header", "path", "slashes", "asterisk", "absolute"],
    )
    def test_odd_requests_add_no_labels_and_no_false_sizes(
        self, address: tuple[str, int], recorded: Recording, head: bytes
    ) -> None:
        """Whatever the server makes of them, it goes on."""
        with socket.create_connection(address, timeout=PATIENCE) as client:
            client.sendall(head)
            client.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while client.recv(65536):
                    pass
        assert self.request(address, "GET", "/teapot").status == 418
        for exchange in recorded.exchanges:
            assert exchange.resource in {TEMPLATE, "{unknown}", "echo", "teapot", "/", "items"}
            assert 0 <= exchange.request_bytes <= 3

    def test_many_clients_at_once_are_counted_exactly(self, address: tuple[str, int], recorded: Recording) -> None:
        """Eight threads, each with a connection of its own."""

        def ask() -> None:
            with connection(address) as client:
                for number in range(25):
                    client.request("POST", "/echo", b"x" * number)
                    read(client.getresponse())

        threads = [Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        exchanges = recorded.ended(200)
        assert sum(exchange.request_bytes for exchange in exchanges) == 8 * sum(range(25))
        assert sum(exchange.response_bytes for exchange in exchanges) == 8 * sum(range(25))

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/", None),
            ("GET", "/items/1", None),
            ("HEAD", "/items/1", None),
            ("DELETE", "/items/1", None),
            ("OPTIONS", "/items/1", None),
            ("POST", "/echo", b"body"),
            ("POST", "/ignore", b"body"),
            ("GET", "/fail", None),
            ("GET", "/teapot", None),
            ("GET", "/compressed", None),
            ("GET", "/mounted/sub/x", None),
            ("GET", "/mounted/", None),
            ("GET", "/nothing", None),
            ("GET", "/items/1/", None),
        ],
    )
    def test_the_response_is_what_it_is_without_us(
        self, address: tuple[str, int], method: str, path: str, body: bytes | None
    ) -> None:
        """Status, headers and body, but for the date."""
        with self.serve(Stage(), tracked=False) as plain:
            expected = self.request(plain, method, path, body, {"Host": "contract"})
        assert self.request(address, method, path, body, {"Host": "contract"}) == expected

    def test_a_backend_that_fails_is_not_noticed(self, stage: Stage) -> None:
        """The application answers, and the log says once what happened."""
        logged: list[logging.LogRecord] = []
        handler, logger = logging.Handler(), logging.getLogger("llm_common")
        handler.emit = logged.append  # type: ignore[method-assign,assignment]
        logger.addHandler(handler)
        try:
            with override(backends=(Broken(),), strict=False), self.serve(stage, tracked=True) as address:
                for _ in range(2):
                    assert self.request(address, "GET", "/items/1").body == b"item 1"
        finally:
            logger.removeHandler(handler)
        faults = [record for record in logged if "finished raised OSError" in record.getMessage()]
        assert [record.levelname for record in faults][:1] == ["WARNING"]
        assert "WARNING" not in [record.levelname for record in faults][1:]


class Broken:
    """A backend whose HTTP recorders raise."""

    @hookimpl
    def llm_common_bind_http(self) -> "Broken":
        """Return itself as the recorder."""
        return self

    def finished(self, *_: object) -> None:
        """Raise."""
        raise OSError("the backend is broken")


def labels(exchange: HttpExchange) -> tuple[str, str, str, str]:
    """Return the labels of an exchange."""
    return exchange.method, exchange.status, exchange.resource, exchange.app_type


@contextmanager
def connection(address: tuple[str, int]) -> Iterator[HTTPConnection]:
    """Connect for the length of a ``with`` block."""
    client = HTTPConnection(*address, timeout=PATIENCE)
    try:
        yield client
    finally:
        client.close()


def read(response: HTTPResponse) -> Answer:
    """Return the whole response; without the date, which differs from second to second."""
    headers = {name.lower(): value for name, value in response.getheaders() if name.lower() != "date"}
    return Answer(response.status, headers, response.read())
