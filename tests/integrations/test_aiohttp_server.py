import asyncio
import gzip
import logging
import os
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler, Middleware

from llm_common import configure
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import HttpExchange
from llm_common.http_labels import UNKNOWN
from llm_common.integrations import aiohttp_server
from llm_common.integrations.aiohttp_server import metrics_handler, metrics_middleware
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage, connection, labels, read
from llm_common.testing.conformance.recording import PATIENCE, Recording, recording
from scraping import Scrape, parsed


@contextmanager
def serving(app: web.Application, **options: Any) -> Iterator[tuple[str, int]]:
    """Serve an application from a thread with a loop of its own; yield host and port."""
    started = Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5, **options)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.update(loop=asyncio.get_running_loop(), stop=asyncio.Event(), address=runner.addresses[0])
        started.set()
        await found["stop"].wait()
        await runner.cleanup()

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(PATIENCE)
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join()


def application(stage: Stage, *middlewares: Middleware) -> web.Application:
    async def home(request: web.Request) -> web.Response:
        return web.Response(text="home")

    async def item(request: web.Request) -> web.Response:
        return web.Response(text=f"item {request.match_info['item_id']}")

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def ignore(request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await asyncio.to_thread(stage.wait)
        await response.write(b"two")
        return response

    async def slow(request: web.Request) -> web.Response:
        await asyncio.to_thread(stage.wait)
        return web.Response(text="slow")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(http_server.MOST_PIECES):
            await response.write(http_server.PIECE)
        return response

    async def fail(request: web.Request) -> web.Response:
        raise HandlerError

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        raise HandlerError

    async def teapot(request: web.Request) -> web.Response:
        raise Teapot(text="teapot")

    async def compressed(request: web.Request) -> web.Response:
        return web.Response(body=http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    async def mounted(request: web.Request) -> web.Response:
        return web.Response(text=f"mounted {request.match_info['name']}")

    app = web.Application(middlewares=middlewares)
    app.add_routes(
        [
            web.get("/", home),
            web.get("/items/{item_id}", item),
            web.post("/echo", echo),
            web.post("/ignore", ignore),
            web.get("/stream", stream),
            web.get("/slow", slow),
            web.get("/endless", endless),
            web.get("/fail", fail),
            web.get("/late", late),
            web.get("/teapot", teapot),
            web.get("/compressed", compressed),
            web.get("/metrics", metrics_handler),
        ]
    )
    inner = web.Application(middlewares=middlewares)  # the same once more, which must not count twice
    inner.add_routes([web.get("/sub/{name:[a-z]+}", mounted)])
    app.add_subapp("/mounted", inner)
    return app


class Teapot(web.HTTPClientError):
    status_code = 418


class TestAiohttpServer(HttpServerContract):
    notices_clients_that_wait = True

    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        return serving(application(stage, *[metrics_middleware] if tracked else []))


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as backend:
        yield backend


def app_with(*routes: web.RouteDef | web.StaticDef, middlewares: tuple[Middleware, ...] = ()) -> web.Application:
    app = web.Application(middlewares=[*middlewares, metrics_middleware])
    app.add_routes(routes)
    return app


def ask(
    address: tuple[str, int], path: str = "/", method: str = "GET", headers: dict[str, str] | None = None
) -> http_server.Answer:
    with connection(address) as client:
        client.request(method, path, headers=headers or {})
        return read(client.getresponse())


def answering(make: Callable[[], web.StreamResponse], path: str = "/") -> web.RouteDef:
    async def handler(request: web.Request) -> web.StreamResponse:
        return make()

    return web.get(path, handler)


def test_options_make_another_middleware(recorded: Recording) -> None:
    app = web.Application(middlewares=[metrics_middleware(app_type="admin_api", exclude="/hidden/*")])
    app.add_routes([answering(web.Response, "/hidden/{name}"), answering(web.Response, "/metrics")])
    with serving(app) as address:
        ask(address, "/hidden/x")
        ask(address, "/metrics")
    assert recorded.one() == HttpExchange("GET", "200", "metrics", "admin_api", 0, 0)


def test_what_is_no_request_is_refused_with_the_right_way_to_write_it() -> None:
    with pytest.raises(TypeError, match=r"middlewares=\[metrics_middleware\]"):
        metrics_middleware(web.Application())  # type: ignore[call-overload]


def test_a_whole_response_that_aiohttp_compresses_counts_compressed(recorded: Recording) -> None:
    def compressed() -> web.Response:
        response = web.Response(text="compress me " * 1000)
        response.enable_compression()
        return response

    with serving(app_with(answering(compressed))) as address:
        answer = ask(address, headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(answer.body) == b"compress me " * 1000
    assert recorded.one().response_bytes == len(answer.body)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_stream_that_aiohttp_compresses_counts_compressed_and_without_its_framing(
    recorded: Recording, version: bytes
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression(web.ContentCoding.deflate)
        await response.prepare(request)
        for number in range(5):
            await response.write(f"piece {number} ".encode() * 10_000)
        await response.write_eof(b"the end")
        return response

    with serving(app_with(web.get("/", stream))) as address:
        if version == b"1.1":
            body = ask(address).body
        else:
            with socket.create_connection(address, timeout=PATIENCE) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")[2]
    expected = b"".join(f"piece {number} ".encode() * 10_000 for number in range(5)) + b"the end"
    assert zlib.decompress(body) == expected
    assert recorded.one().response_bytes == len(body)


def test_what_exceeds_the_declared_length_is_not_sent_and_not_counted(recorded: Recording) -> None:
    async def too_much(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "4"})
        await response.prepare(request)
        await response.write(b"123")
        await response.write(memoryview(b"456"))
        return response

    with serving(app_with(web.get("/", too_much))) as address:
        assert ask(address).body == b"1234"
    assert recorded.one().response_bytes == 4


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [200, 204, 304])
def test_responses_that_must_have_no_body_count_none(recorded: Recording, method: str, status: int) -> None:
    with serving(app_with(answering(lambda: web.Response(status=status, body=b"body")))) as address:
        answer = ask(address, method=method)
    assert recorded.one() == HttpExchange(method, str(status), "/", "app_api", 0, len(answer.body))
    assert len(answer.body) == (4 if (method, status) == ("GET", 200) else 0)


@pytest.mark.parametrize(
    ("headers", "method", "status", "size"),
    [
        ({}, "GET", "200", 100_000),
        ({"Range": "bytes=10-19"}, "GET", "206", 10),
        ({"Range": "bytes=200000-"}, "GET", "416", 0),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, "GET", "304", 0),
        ({}, "HEAD", "200", 0),
    ],
)
def test_files_that_the_loop_sends_count_with_their_bytes(
    recorded: Recording, tmp_path: Path, headers: dict[str, str], method: str, status: str, size: int
) -> None:
    (tmp_path / "file.bin").write_bytes(os.urandom(100_000))
    app = app_with(answering(lambda: web.FileResponse(tmp_path / "file.bin"), "/file"), web.static("/static", tmp_path))
    with serving(app) as address:
        for path in ("/file", "/static/file.bin"):
            answer = ask(address, path, method, headers)
            assert (str(answer.status), len(answer.body)) == (status, size)
    found = recorded.ended(2)
    assert {(one.status, one.response_bytes) for one in found} == {(status, size)}
    assert [one.resource for one in found] == ["file", "static/{filename}"]


def test_a_response_that_a_middleware_further_out_puts_in_its_place_is_what_counts(recorded: Recording) -> None:
    @web.middleware
    async def mended(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except HandlerError:
            return web.Response(status=503, text="try again")

    async def fail(request: web.Request) -> web.Response:
        raise HandlerError

    with serving(app_with(web.get("/", fail), middlewares=(mended,))) as address:
        assert ask(address).status == 503
    assert recorded.one() == HttpExchange("GET", "503", "/", "app_api", 0, 9)


@pytest.mark.parametrize(
    ("problem", "status"), [(TimeoutError(), "504"), (web.HTTPNotFound(), "404"), (web.HTTPFound("/x"), "302")]
)
def test_an_exception_counts_as_what_aiohttp_makes_of_it(recorded: Recording, problem: Exception, status: str) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise problem

    with serving(app_with(web.get("/", fail))) as address:
        answer = ask(address)
    assert labels(recorded.one()) == ("GET", status, "/", "app_api")
    assert recorded.one().response_bytes == len(answer.body)


def test_a_handler_without_a_response_counts_as_the_500_that_aiohttp_sends(recorded: Recording) -> None:
    async def nothing(request: web.Request) -> None:
        pass

    with serving(app_with(web.get("/", nothing))) as address:  # type: ignore[arg-type]
        answer = ask(address)
    assert recorded.one() == HttpExchange("GET", "500", "/", "app_api", 0, len(answer.body))


def test_headers_that_cannot_be_sent_count_as_500(recorded: Recording) -> None:
    with serving(app_with(answering(lambda: web.Response(headers={"X-Odd": "a\nb"})))) as address:
        with pytest.raises(RemoteDisconnected):
            ask(address)
        assert labels(recorded.one()) == ("GET", "500", "/", "app_api")


def test_a_handler_that_is_cancelled_because_the_client_has_gone_counts_as_499(
    recorded: Recording, stage: Stage
) -> None:
    async def wait(request: web.Request) -> web.Response:
        stage._reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    with serving(app_with(web.get("/", wait)), handler_cancellation=True) as address:
        with connection(address) as client:
            client.request("GET", "/")
            stage.await_handler()
        assert labels(recorded.one()) == ("GET", "499", "/", "app_api")


def test_a_timeout_further_out_counts_as_the_response_that_follows(recorded: Recording) -> None:
    @web.middleware
    async def impatient(request: web.Request, handler: Handler) -> web.StreamResponse:
        async with asyncio.timeout(0):
            return await handler(request)

    async def wait(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with serving(app_with(web.get("/", wait), middlewares=(impatient,))) as address:
        assert ask(address).status == 504
    assert labels(recorded.one()) == ("GET", "504", "/", "app_api")


def test_a_client_that_goes_away_while_it_sends_counts_as_499(recorded: Recording, stage: Stage) -> None:
    async def upload(request: web.Request) -> web.Response:
        stage._reached.set()
        return web.Response(body=await request.read())

    with serving(app_with(web.post("/", upload))) as address:
        with connection(address) as client:
            client.putrequest("POST", "/")
            client.putheader("Content-Length", "100")
            client.endheaders(b"123")
            stage.await_handler()
        assert recorded.one() == HttpExchange("POST", "499", "/", "app_api", 3, 0)


def test_a_client_that_goes_away_before_a_stream_begins_counts_as_499(recorded: Recording, stage: Stage) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(stage.wait)
        response = web.StreamResponse()
        await response.prepare(request)
        raise AssertionError

    with serving(app_with(web.get("/", stream), answering(web.Response, "/other"))) as address:
        with connection(address) as client:
            client.request("GET", "/")
            stage.await_handler()
        ask(address, "/other")
        stage.release()
        assert labels(recorded.ended(2)[1]) == ("GET", "499", "/", "app_api")


def test_a_stream_that_is_returned_to_nobody_counts_as_499(recorded: Recording, stage: Stage) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(stage.wait)
        return web.StreamResponse()

    with serving(app_with(web.get("/", stream), answering(web.Response, "/other"))) as address:
        with connection(address) as client:
            client.request("GET", "/")
            stage.await_handler()
        ask(address, "/other")
        stage.release()
        assert labels(recorded.ended(2)[1]) == ("GET", "499", "/", "app_api")


def test_websockets_pass_through_uncounted(recorded: Recording) -> None:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data.upper())
        return response

    async def client(address: tuple[str, int]) -> str:
        async with ClientSession() as session, session.ws_connect(f"http://{address[0]}:{address[1]}/talk") as socket:
            await socket.send_str("hello")
            return await socket.receive_str()

    with serving(app_with(web.get("/talk", talk), answering(web.Response))) as address:
        assert asyncio.run(client(address)) == "HELLO"
        assert ask(address, "/talk").status == 400  # no handshake
    assert labels(recorded.one()) == ("GET", "400", "talk", "app_api")


def test_a_client_that_asks_before_it_sends_is_told_to_continue(recorded: Recording) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    with serving(app_with(web.post("/", echo))) as address, socket.create_connection(address, PATIENCE) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"body")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert recorded.one() == HttpExchange("POST", "200", "/", "app_api", 4, 4)


def test_early_hints_are_no_part_of_the_body(recorded: Recording) -> None:
    async def hints(request: web.Request) -> web.Response:
        await request.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
        request.writer.output_size = 0
        return web.Response(text="body")

    with serving(app_with(web.get("/", hints))) as address, socket.create_connection(address, PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: client.recv(65536), b"")).endswith(b"\r\n\r\nbody")
    assert recorded.one().response_bytes == 4


def test_a_request_body_counts_as_it_came_also_where_aiohttp_decompresses_it(recorded: Recording) -> None:
    async def read_all(request: web.Request) -> web.Response:
        assert await request.read() == b"upload " * 1000
        return web.Response()

    body = gzip.compress(b"upload " * 1000)
    with serving(app_with(web.post("/", read_all))) as address, connection(address) as client:
        client.request("POST", "/", body, {"Content-Encoding": "gzip"})
        assert read(client.getresponse()).status == 200
    assert recorded.one().request_bytes == len(body)


def test_a_response_body_that_is_streamed_from_the_application_counts(recorded: Recording) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    with serving(app_with(answering(lambda: web.Response(body=pieces())))) as address:
        assert ask(address).body == b"onetwo"
    assert recorded.one().response_bytes == 6


def test_a_wrong_method_counts_with_the_route_also_below_a_mount(recorded: Recording) -> None:
    app, inner = app_with(answering(web.Response, "/other"), answering(web.Response, "/items/{id}")), web.Application()
    inner.add_routes([answering(web.Response, "/parts/{part}")])
    app.add_subapp("/shop", inner)
    with serving(app) as address:
        for path in ("/items/1", "/shop/parts/1", "/shop/nothing"):
            ask(address, path, "DELETE")
    assert [(one.status, one.resource) for one in recorded.ended(3)] == [
        ("405", "items/{id}"),
        ("405", "shop/parts/{part}"),
        ("404", UNKNOWN),
    ]


def test_a_route_with_text_that_is_not_ascii_counts_as_it_is_written(recorded: Recording) -> None:
    with serving(app_with(answering(web.Response, "/x/товары"))) as address:
        assert ask(address, "/x/%D1%82%D0%BE%D0%B2%D0%B0%D1%80%D1%8B").status == 200
    assert recorded.one().resource == "x/товары"


def no_template(resource: web.PlainResource) -> str:
    raise LookupError("no template")


def test_a_route_that_cannot_be_told_is_logged_once_and_counts_as_unknown(
    recorded: Recording, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_server, "_logged", set())
    app = app_with(answering(lambda: web.Response(text="fine")))
    with caplog.at_level(logging.DEBUG, "llm_common"), serving(app) as address:
        monkeypatch.setattr(web.PlainResource, "canonical", property(no_template))
        assert [ask(address).body for _ in range(2)] == [b"fine"] * 2
    assert {one.resource for one in recorded.ended(2)} == {UNKNOWN}
    told = [record.levelname for record in caplog.records if "can't be told" in record.getMessage()]
    assert told == ["WARNING", "DEBUG"]


class FixedWriter:
    """A writer that can't be watched."""

    __slots__ = ()


def test_a_request_that_cannot_be_watched_is_served_uncounted(
    recorded: Recording, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_server, "_logged", set())

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text="fine")

    async def ask_directly() -> web.StreamResponse:
        return await metrics_middleware(make_mocked_request("GET", "/", writer=FixedWriter()), handler)

    assert asyncio.run(ask_directly()).status == 200
    assert recorded.exchanges == ()
    assert "a request can't be counted" in caplog.text


def test_a_mocked_request_is_served() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await response.write_eof()
        return response

    async def ask_directly() -> web.StreamResponse:
        return await metrics_middleware(make_mocked_request("GET", "/"), handler)

    with recording() as backend:
        assert asyncio.run(ask_directly()).status == 200
    assert labels(backend.one()) == ("GET", "200", UNKNOWN, "app_api")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_handler_serves_the_metrics(scrape: Scrape, method: str) -> None:
    app = app_with(answering(web.Response, "/items/{id}"), web.get("/metrics", metrics_handler))
    with serving(app) as address:
        ask(address, "/items/1")
        plain = ask(address, "/metrics", method)
        packed = ask(address, "/metrics", method, {"Accept-Encoding": "gzip", "Accept": "application/openmetrics-text"})
        chosen = ask(address, "/metrics?name%5B%5D=genapp_http_requests_total", method)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert packed.headers["content-type"].startswith("application/openmetrics-text")
    assert packed.headers["content-encoding"] == "gzip"
    assert int(plain.headers["content-length"]) > int(packed.headers["content-length"]) > 0
    if method == "GET":
        assert parsed(plain.body.decode()) == scrape()
        assert gzip.decompress(packed.body).endswith(b"# EOF\n")
        assert {name for name, _ in parsed(chosen.body.decode())} == {"genapp_http_requests_total"}
    else:
        assert plain.body == packed.body == b""


def test_the_handler_takes_headers_that_come_twice(registry: Any) -> None:
    configure(app="shop", backends=[PrometheusBackend(registry)])
    with serving(app_with(web.get("/metrics", metrics_handler))) as address:
        client = HTTPConnection(*address, timeout=PATIENCE)
        client.putrequest("GET", "/metrics", skip_accept_encoding=True)
        client.putheader("Accept-Encoding", "br")
        client.putheader("Accept-Encoding", "gzip")
        client.endheaders()
        assert read(client.getresponse()).headers["content-encoding"] == "gzip"
        client.close()


def test_the_handler_refuses_other_methods(scrape: Scrape) -> None:
    with serving(app_with(web.route("*", "/metrics", metrics_handler))) as address:
        answer = ask(address, "/metrics", "POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.release()
