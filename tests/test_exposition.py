import asyncio
import gzip
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import urlopen
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from llm_common import action_tracking, configure, exposition
from llm_common.exposition import gzip_accepted, respond
from llm_common.prometheus import (
    metrics_asgi_app,
    metrics_wsgi_app,
    render_metrics,
)
from scraping import Scrape, parsed
from serving import uvicorn_server

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def filled(scrape: Scrape) -> None:
    with action_tracking("menu_handler") as tracker:
        tracker.size(3)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("text/html", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=nonsense", TEXT),
        ("text/plain;version=nonsense", TEXT),
        ("\x00,;;=,q=", TEXT),
    ],
)
def test_the_format_follows_the_accept_header(registry: CollectorRegistry, accept: str, content_type: str) -> None:
    body, found = render_metrics(accept, registry=registry)
    assert found == content_type
    reference = openmetrics.generate_latest if "openmetrics" in content_type else generate_latest
    assert body == reference(registry)


@pytest.mark.usefixtures("filled")
def test_the_scrape_shows_the_registry_of_the_backend_in_force_by_default(registry: CollectorRegistry) -> None:
    Counter("own_total", "of the application", registry=registry).inc()
    values = parsed(render_metrics()[0].decode())
    assert values["own_total", ()] == 1
    assert any(name == "genapp_action_count_total" for name, _ in values)


def test_without_a_prometheus_backend_the_global_registry_is_shown() -> None:
    configure(app="shop_bot", backends=["noop"])
    assert b"python_info" in render_metrics()[0]


@pytest.mark.usefixtures("filled")
def test_a_scrape_can_be_restricted_to_some_names(registry: CollectorRegistry) -> None:
    body, _ = render_metrics(registry=registry, names=["genapp_action_size_total"])
    assert {name for name, _ in parsed(body.decode())} == {"genapp_action_size_total"}


class DiskGoneError(Exception):
    """Raised by one test alone, since each kind of fault is a warning once in a process."""


def test_a_collector_that_raises_gives_status_500_and_its_traceback_to_the_log(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def collect(self) -> Iterator[Any]:
            raise DiskGoneError

    caplog.set_level(logging.DEBUG, logger="llm_common")
    registry.register(Broken())
    for _ in range(2):
        answer = respond("GET", "", {}, registry)
        assert answer.status == 500
        assert b"can't be rendered" in answer.body
    assert [(record.levelname, bool(record.exc_info)) for record in caplog.records] == [
        ("WARNING", True),
        ("DEBUG", True),
    ]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
        ("br", False),
    ],
)
def test_gzip_is_used_where_the_client_accepts_it(header: str, accepted: bool) -> None:
    assert gzip_accepted(header) is accepted


@given(st.text(), st.text(), st.text(), st.sampled_from(["GET", "HEAD", "POST", "", "PROPFIND"]))
def test_any_request_gets_an_answer(query: str, accept: str, encoding: str, method: str) -> None:
    answer = respond(method, query, {"accept": accept, "accept-encoding": encoding}, CollectorRegistry())
    assert answer.status in {200, 405}
    for name, value in answer.headers:
        assert "\n" not in name + value


def call_wsgi(app: Any, method: str = "GET", query: str = "", **headers: str) -> tuple[str, dict[str, str], bytes]:
    found: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        found.extend([status, dict(headers)])
        return found.append

    environ = {"REQUEST_METHOD": method, "QUERY_STRING": query, "SERVER_NAME": "x", "SERVER_PORT": "1"}
    environ |= {"SCRIPT_NAME": "/metrics", "PATH_INFO": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    from wsgiref.util import setup_testing_defaults

    setup_testing_defaults(environ)
    result: Iterable[bytes] = validator(app)(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        result.close()  # type: ignore[attr-defined]
    return found[0], found[1], body


@pytest.mark.usefixtures("filled")
def test_the_wsgi_app_serves_both_formats_and_gzip(registry: CollectorRegistry) -> None:
    app = metrics_wsgi_app()
    status, headers, body = call_wsgi(app)
    assert (status, headers["Content-Type"], body) == ("200 OK", TEXT, generate_latest(registry))
    status, headers, body = call_wsgi(app, accept="application/openmetrics-text", accept_encoding="gzip")
    assert (headers["Content-Type"], headers["Content-Encoding"]) == (OPENMETRICS, "gzip")
    assert int(headers["Content-Length"]) == len(body)
    assert gzip.decompress(body).endswith(b"# EOF\n")
    status, headers, body = call_wsgi(app, query="name[]=genapp_action_size_total")
    assert b"genapp_action_count" not in body
    status, headers, body = call_wsgi(app, "HEAD")
    assert (status, body) == ("200 OK", b"")
    status, headers, body = call_wsgi(app, "POST")
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")


Message = dict[str, Any]


def call_asgi(app: Any, scope: Message, received: Iterable[Message] = ()) -> list[Message]:
    sent: list[Message] = []
    messages = iter(received)

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


@pytest.mark.usefixtures("filled")
def test_the_asgi_app_serves_the_scrape(registry: CollectorRegistry) -> None:
    headers = [(b"Accept", b"application/json"), (b"accept", b"application/openmetrics-text")]
    start, body = call_asgi(
        metrics_asgi_app(registry), {"type": "http", "method": "GET", "headers": headers, "query_string": b""}
    )
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"] == OPENMETRICS.encode()
    assert body["body"] == openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]


def test_the_asgi_app_renders_in_a_thread_and_not_on_the_event_loop(registry: CollectorRegistry) -> None:
    threads: list[threading.Thread] = []

    class Watching:
        def collect(self) -> Iterator[Any]:
            threads.append(threading.current_thread())
            return iter(())

    registry.register(Watching())
    call_asgi(metrics_asgi_app(registry), {"type": "http", "method": "GET", "headers": []})
    assert threads
    assert threads[0] is not threading.current_thread()


def test_the_asgi_app_can_stand_alone_and_refuses_web_sockets() -> None:
    app = metrics_asgi_app()
    lifespan = call_asgi(app, {"type": "lifespan"}, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    assert [message["type"] for message in lifespan] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert call_asgi(app, {"type": "websocket"}) == [{"type": "websocket.close", "code": 1000}]


def test_the_documented_door_opens_only_to_what_it_lists() -> None:
    import llm_common.prometheus as door

    assert door.render_metrics is exposition.render_metrics
    for name in door.__all__:
        assert getattr(door, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        door.nonsense


@pytest.mark.usefixtures("filled")
def test_many_who_scrape_a_mounted_endpoint_at_once_get_the_same_exact_page(registry: CollectorRegistry) -> None:
    together = threading.Barrier(64)
    with uvicorn_server(metrics_asgi_app(registry), lifespan="off", timeout_keep_alive=1) as (host, port):

        def scraped(_: int) -> bytes:
            together.wait(30)
            with urlopen(f"http://{host}:{port}/metrics", timeout=60) as answer:
                return bytes(answer.read())

        with (
            socket.create_connection((host, port)) as slow,  # which reads nothing of its answer
            ThreadPoolExecutor(64) as pool,
        ):
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
            assert set(pool.map(scraped, range(64))) == {generate_latest(registry)}
