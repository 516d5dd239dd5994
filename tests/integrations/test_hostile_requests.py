"""Whatever a client sends, the scrape stays valid and the number of series bounded."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from llm_common import configure
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import HttpSeries
from llm_common.dispatch import unconfigured
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.prometheus import render_metrics
from scraping import parsed


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: str) -> str:
        return item_id

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.put("/files/{path:path}")
    async def put(path: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield path.encode("utf-8", "replace")
            if "\x00" in path:
                raise ValueError("a path with a zero")

        return StreamingResponse(pieces())

    @app.delete("/fail")
    async def fail() -> None:
        raise RuntimeError("always")

    sub = FastAPI()
    sub.add_api_route("/{name}/leaf", lambda name: name)
    app.mount("/sub/{tenant}", sub)
    app.add_middleware(MetricsMiddleware, exclude=())
    return app


app = application()
text = st.text(st.characters(), max_size=20)
raw = st.binary(max_size=30)
paths = st.builds(
    str.__add__, st.sampled_from(["/", "/items/", "/echo", "/files/", "/fail", "/sub/", "/sub/x/", "", "*", "//"]), text
)
messages = st.lists(
    st.one_of(
        st.builds(lambda body, more: {"type": "http.request", "body": body, "more_body": more}, raw, st.booleans()),
        st.just({"type": "http.disconnect"}),
    ),
    max_size=4,
)
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "get"]) | text,
        "path": paths,
        "query_string": raw,
        "headers": st.lists(
            st.tuples(st.sampled_from([b"content-length", b"host", b"transfer-encoding", b"x"]) | raw, raw), max_size=4
        ),
        "root_path": st.sampled_from(["", "/sub", "/x\ud800"]),
    }
)


def respond(request: dict[str, Any], incoming: list[dict[str, Any]]) -> None:
    pending = list(incoming)

    async def receive() -> dict[str, Any]:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "http_version": "1.1", "scheme": "http", "raw_path": b"", **request}
    # What the application raises, or the framework over text that it can't write, comes through.
    with suppress(RuntimeError, ValueError, ClientDisconnect):
        asyncio.run(app({"server": ("h", 80), "client": ("c", 1), **scope}, receive, send))


RESOURCES = {"items/{item_id}", "echo", "files/{path}", "fail", "sub/{tenant}/{name}/leaf", "{unknown}"}


@settings(max_examples=50)
@given(st.lists(st.tuples(requests, messages), min_size=1, max_size=20))
def test_hostile_requests(program: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    registry = CollectorRegistry()
    with unconfigured():
        configure(app="shop_bot", backends=[PrometheusBackend(registry)], strict=True)
        for request, incoming in program:
            respond(request, incoming)
    scrape = render_metrics(registry=registry)[0]
    counted = {
        tuple(value for label, value in labels if label in HttpSeries._fields): value
        for (name, labels), value in parsed(scrape.decode()).items()
        if name == "genapp_http_requests_total"
    }
    assert {resource for _, _, resource, _ in counted} <= RESOURCES
    assert {method for _, method, _, _ in counted} <= {"GET", "POST", "PUT", "DELETE", "HEAD", "_OTHER"}
    assert sum(counted.values()) == len(program)
    check_with_promtool(scrape)


def check_with_promtool(scrape: bytes) -> None:
    """Have Prometheus's own parser read the scrape. Its advice on names, with status 3, is about names that stay."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed; it comes with the Debian package prometheus")
        pytest.skip("promtool is not installed; it comes with the Debian package prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=scrape, capture_output=True, timeout=60)
    assert done.returncode in {0, 3}, done.stderr.decode()
    assert b"error while linting" not in done.stderr
