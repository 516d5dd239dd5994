import asyncio
import gzip
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, redirect, request, send_file
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from llm_common.contract import HttpExchange
from llm_common.http_labels import UNKNOWN
from llm_common.integrations.flask import flask_endpoint_for_prometheus
from llm_common.integrations.wsgi import MetricsMiddleware
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage, connection, labels, read
from llm_common.testing.conformance.recording import Recording, recording
from scraping import Scrape, parsed
from wsgi_serving import gunicorn_server, werkzeug_server


def application(stage: Stage) -> Flask:
    app = Flask("contract")

    @app.get("/")
    def home() -> str:
        return "home"

    @app.get("/items/<item_id>")
    def item(item_id: str) -> str:
        return f"item {item_id}"

    @app.post("/echo")
    def echo() -> bytes:
        return request.get_data()

    @app.post("/ignore")
    def ignore() -> tuple[str, int]:
        return "", 204

    @app.get("/stream")
    def stream() -> Response:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            stage.wait()
            yield b"two"

        return Response(pieces())

    @app.get("/slow")
    def slow() -> str:
        stage.wait()
        return "slow"

    @app.get("/endless")
    def endless() -> Response:
        return Response(http_server.PIECE for _ in range(http_server.MOST_PIECES))

    @app.get("/fail")
    def fail() -> str:
        raise HandlerError

    @app.get("/late")
    def late() -> Response:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            raise HandlerError

        return Response(pieces())

    @app.get("/teapot")
    def teapot() -> tuple[str, int]:
        return "teapot", 418

    @app.get("/compressed")
    def compressed() -> Response:
        return Response(http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    app.route("/metrics")(flask_endpoint_for_prometheus)
    return app


def mounted() -> Flask:
    app = Flask("mounted")

    @app.get("/sub/<name>")
    def sub(name: str) -> str:
        return f"mounted {name}"

    return app


class TestFlask(HttpServerContract):
    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        app, inner = application(stage), mounted()
        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/mounted": inner})  # type: ignore[method-assign]
        if tracked:
            inner.wsgi_app = MetricsMiddleware(inner.wsgi_app)  # type: ignore[method-assign]
            app.wsgi_app = MetricsMiddleware(app.wsgi_app)  # type: ignore[method-assign]
        return werkzeug_server(app)


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as backend:
        yield backend


def shop() -> Flask:
    app = Flask("shop")
    app.route("/items/<int:item_id>", methods=["GET", "POST"])(lambda item_id: "item")
    app.get("/list/", endpoint="list")(lambda: "list")
    app.get("/abort", endpoint="abort")(lambda: abort(404))
    app.get("/elsewhere", endpoint="elsewhere")(lambda: redirect("/list/"))
    app.url_map.add(app.url_rule_class("/old", redirect_to="http://other.example/"))
    app.post("/upload", endpoint="upload")(lambda: request.stream.read(2))

    @app.get("/fail")
    def fail() -> str:
        raise HandlerError

    return app


@pytest.mark.parametrize(
    ("method", "path", "status", "resource"),
    [
        ("GET", "/items/7?q=1", "200", "items/{item_id}"),
        ("DELETE", "/items/7", "405", "items/{item_id}"),
        ("OPTIONS", "/items/7", "200", "items/{item_id}"),
        ("GET", "/list", "308", "list"),
        ("GET", "/items//7", "308", "items/{item_id}"),
        ("GET", "/elsewhere", "302", "elsewhere"),
        ("GET", "/old", "308", UNKNOWN),
        ("GET", "/abort", "404", "abort"),
        ("GET", "/items/seven", "404", UNKNOWN),
        ("GET", "/fail", "500", "fail"),
        ("GET", "/static/nothing.css", "404", "static/{filename}"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
def test_a_request_counts_with_the_template_of_its_route(
    recorded: Recording, method: str, path: str, status: str, resource: str, prefix: str
) -> None:
    app: Any = MetricsMiddleware(DispatcherMiddleware(Flask("outer"), {"/mounted": shop()}) if prefix else shop())
    Client(app).open(prefix + path, method=method, buffered=True)
    expected = resource if resource == UNKNOWN else prefix[1:] + "/" * bool(prefix) + resource
    assert labels(recorded.one()) == (method, status, expected, "app_api")


@pytest.mark.parametrize("wrapped", ["app", "wsgi_app", "proxy"])
@pytest.mark.parametrize(
    ("method", "path", "resource"), [("GET", "/fail", "fail"), ("GET", "/nothing", UNKNOWN), ("PUT", "/fail", "fail")]
)
def test_an_exception_that_passes_through_counts_with_its_route(
    recorded: Recording, wrapped: str, method: str, path: str, resource: str
) -> None:
    app = shop()
    app.testing = True
    app.config["TRAP_HTTP_EXCEPTIONS"] = True
    if wrapped == "wsgi_app":
        app.wsgi_app = MetricsMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    elif wrapped == "app":
        app.wsgi_app = MetricsMiddleware(shop_like(app))  # type: ignore[method-assign]
    else:
        app.wsgi_app = MetricsMiddleware(ProxyFix(app.wsgi_app))  # type: ignore[method-assign]
    with pytest.raises((HandlerError, HTTPException)):
        app.test_client().open(path, method=method)
    assert labels(recorded.one()) == (method, "500", resource, "app_api")


def shop_like(app: Flask) -> Flask:
    """Return another application with the same settings."""
    other = shop()
    other.testing = True
    other.config.update(app.config)
    return other


def test_a_prefix_from_a_proxy_is_no_part_of_the_resource(recorded: Recording) -> None:
    app = shop()
    app.wsgi_app = MetricsMiddleware(ProxyFix(app.wsgi_app, x_prefix=1))  # type: ignore[method-assign]
    app.test_client().get("/items/7", headers={"X-Forwarded-Prefix": "/secret"}, buffered=True)
    assert recorded.one().resource == "items/{item_id}"


def test_what_the_application_reads_of_a_request_is_what_counts(recorded: Recording) -> None:
    app = shop()
    app.wsgi_app = MetricsMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    app.test_client().post("/upload", data=b"12345", buffered=True)
    assert recorded.one() == HttpExchange("POST", "200", "upload", "app_api", 2, 2)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_view_serves_the_metrics(scrape: Scrape, method: str) -> None:
    app = shop()
    app.route("/metrics")(flask_endpoint_for_prometheus)
    app.wsgi_app = MetricsMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()
    client.get("/items/7", buffered=True)
    plain = client.open("/metrics", method=method)
    packed = client.open("/metrics", method=method, headers={"Accept-Encoding": "gzip"})
    chosen = client.open("/metrics?name%5B%5D=genapp_http_requests_total", method=method)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(plain.headers["Content-Length"]) > int(packed.headers["Content-Length"]) > 0
    if method == "GET":
        assert parsed(plain.text) == parsed(gzip.decompress(packed.data).decode()) == scrape()
        assert {name for name, _ in parsed(chosen.text)} == {"genapp_http_requests_total"}
    else:
        assert plain.data == packed.data == b""


def test_the_view_can_be_awaited_as_in_the_older_package(scrape: Scrape) -> None:
    async def older() -> Response:
        return await flask_endpoint_for_prometheus()

    with Flask("older").test_request_context("/metrics"):
        answer = asyncio.run(older())
    assert answer.status_code == 200
    assert parsed(answer.get_data(as_text=True)) == scrape()


def test_a_file_that_the_server_sends_counts_with_its_bytes(recorded: Recording, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"x" * 100_000)
    app = Flask("files")
    app.get("/file", endpoint="file")(lambda: send_file(tmp_path / "file.bin"))
    with werkzeug_server(MetricsMiddleware(app)) as address, connection(address) as client:
        client.request("GET", "/file")
        assert len(read(client.getresponse()).body) == 100_000
    assert recorded.one().response_bytes == 100_000


SERVED = """
from flask import Flask, send_file
from llm_common.integrations.flask import flask_endpoint_for_prometheus
from llm_common.integrations.wsgi import MetricsMiddleware

app = Flask(__name__)
app.get("/items/<int:item_id>")(lambda item_id: f"item {item_id}")
app.get("/file", endpoint="file")(lambda: send_file(__file__))
app.route("/metrics")(flask_endpoint_for_prometheus)
application = MetricsMiddleware(app)
"""


@pytest.mark.e2e
def test_gunicorn_serves_an_application_and_its_metrics(tmp_path: Path) -> None:
    with gunicorn_server(SERVED, tmp_path) as address:
        for path, body in (("/items/7", b"item 7"), ("/file", SERVED.encode()), ("/nothing", None)):
            with connection(address) as client:
                client.request("GET", path)
                answer = read(client.getresponse())
                assert body in {None, answer.body}
        with connection(address) as client:
            client.request("GET", "/metrics")
            found = parsed(read(client.getresponse()).body.decode())
    sums = {
        (dict(key)["status"], dict(key)["resource"]): value
        for (name, key), value in found.items()
        if name == "genapp_http_request_size_bytes_sum" and dict(key)["direction"] == "out"
    }
    assert sums["200", "items/{item_id}"] == 6
    assert sums["200", "file"] == len(SERVED)
    assert ("404", UNKNOWN) in sums
    assert len(sums) == 3
