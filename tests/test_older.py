"""Names of the older package: applications that import them keep working."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import llm_common.prometheus
from llm_common import configure, shutdown
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.prometheus import (
    action_tracking,
    build_prometheus_metrics,
    fastapi_endpoint_for_prometheus,
    fastapi_tracking_middleware,
    is_build_metrics,
)
from llm_common.testing import HttpExchange, RecordedMetrics


def test_metrics_are_built_by_name_and_environment() -> None:
    assert not is_build_metrics()
    settings = build_prometheus_metrics(project_name="shop_bot", env="preprod")
    assert (settings.app, settings.env) == ("shop_bot", "preprod")
    assert is_build_metrics()
    shutdown()
    assert not is_build_metrics()


def test_metrics_are_built_by_first_use_too_but_not_where_nothing_is_recorded() -> None:
    configure(backends=["memory"])
    with action_tracking("menu_handler"):
        pass
    assert is_build_metrics()
    configure(backends=["noop"])
    assert not is_build_metrics()


def test_every_public_name_can_be_imported_through_the_door() -> None:
    for name in llm_common.prometheus.__all__:
        assert getattr(llm_common.prometheus, name)
    with pytest.raises(AttributeError, match="has no attribute 'build_metrics'"):
        _ = llm_common.prometheus.build_metrics


class Unhandled(Exception):
    pass


def application() -> FastAPI:
    app = FastAPI()
    app.middleware("http")(fastapi_tracking_middleware)
    app.get("/prometheus")(fastapi_endpoint_for_prometheus)

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/fail")
    async def fail() -> None:
        raise Unhandled

    @app.get("/late")
    async def late() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            raise Unhandled

        return StreamingResponse(pieces())

    return app


def test_the_middleware_function_counts_as_the_middleware_does(recorded_metrics: RecordedMetrics) -> None:
    client = TestClient(application(), raise_server_exceptions=False)
    assert client.get("/items/5?token=1").json() == 5
    client.head("/items/5")
    client.post("/echo", content=b"12345")
    client.post("/echo", headers={"content-length": "-1"})
    client.get("/nothing")
    client.get("/fail")
    client.get("/prometheus")
    assert recorded_metrics.exchanges == [
        HttpExchange("GET", "200", "items/{item_id}", "app_api", 0, 1),
        HttpExchange("HEAD", "405", "items/{item_id}", "app_api", 0, 0),
        HttpExchange("POST", "200", "echo", "app_api", 5, 5),
        HttpExchange("POST", "200", "echo", "app_api", 0, 0),
        HttpExchange("GET", "404", "{unknown}", "app_api", 0, 22),
        HttpExchange("GET", "500", "fail", "app_api", 0, 0),
    ]


def test_the_middleware_function_leaves_exceptions_alone(recorded_metrics: RecordedMetrics) -> None:
    client = TestClient(application())
    with pytest.raises(Unhandled):
        client.get("/fail")
    with pytest.raises(Unhandled):
        client.get("/late")
    assert [(one.status, one.response_bytes) for one in recorded_metrics.exchanges] == [
        ("500", 0),
        ("200", 3),  # the framework hands such an exception past the function
    ]


def test_a_stream_that_is_cut_off_counts_as_499(recorded_metrics: RecordedMetrics) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def call_next(request: Request) -> Any:
        return StreamingResponse(pieces())

    async def part() -> None:
        request = Request({"type": "http", "method": "GET", "path": "/x", "headers": []})
        response: Any = await fastapi_tracking_middleware(request, call_next)
        assert await anext(response.body_iterator) == b"one"
        assert recorded_metrics.exchanges == []
        await response.body_iterator.aclose()

    asyncio.run(part())
    assert recorded_metrics.exchanges == [HttpExchange("GET", "499", "{unknown}", "app_api", 0, 3)]


def test_with_the_middleware_outside_it_a_request_counts_once(recorded_metrics: RecordedMetrics) -> None:
    app = application()
    app.add_middleware(MetricsMiddleware)
    TestClient(app).get("/items/1")
    recorded_metrics.assert_http(resource="items/{item_id}", times=1)


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
def test_the_endpoint_answers_in_the_format_that_is_asked_for(kind: str) -> None:
    configure(app="shop_bot", backends=["prometheus"])
    app: Any = application()
    if kind == "starlette":
        app = Starlette(routes=[Route("/prometheus", fastapi_endpoint_for_prometheus)])
    client = TestClient(app)
    plain = client.get("/prometheus?name[]=genapp_none")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert plain.text == ""
    openmetrics = client.get("/prometheus", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.text.endswith("# EOF\n")
    assert openmetrics.headers["content-encoding"] == "gzip"


def test_the_endpoint_can_be_called_by_an_endpoint_of_ones_own() -> None:
    configure(app="shop_bot", backends=["prometheus"])
    response = asyncio.run(fastapi_endpoint_for_prometheus())
    assert b"# TYPE genapp_http_requests_total counter" in bytes(response.body)
