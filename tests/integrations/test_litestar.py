import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

from litestar import Litestar, Request, Response, Router, asgi, get, post
from litestar.middleware import DefineMiddleware
from litestar.params import FromPath
from litestar.response import Stream
from litestar.testing import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.testing import RecordedMetrics
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage
from serving import uvicorn_server

AnyRequest = Request[Any, Any, Any]
Tracked: Any = MetricsMiddleware  # the frameworks' types of an application exclude each other


def handlers(stage: Stage) -> list[Any]:
    @get("/", sync_to_thread=False)
    def home() -> str:
        return "home"

    @get("/items/{item_id:str}", sync_to_thread=False)
    def item(item_id: FromPath[str]) -> str:
        return f"item {item_id}"

    @post("/echo", status_code=200)
    async def echo(request: AnyRequest) -> bytes:
        return await request.body()

    @post("/ignore", status_code=204)
    async def ignore() -> None: ...

    @get("/stream")
    async def stream() -> Stream:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.to_thread(stage.wait)
            yield "two"

        return Stream(pieces())

    @get("/slow")
    async def slow() -> str:
        await asyncio.to_thread(stage.wait)
        return "slow"

    @get("/endless")
    async def endless() -> Stream:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(http_server.MOST_PIECES):
                yield http_server.PIECE
                await asyncio.sleep(0)  # lets the server see that the client has gone

        return Stream(pieces())

    @get("/fail")
    async def fail() -> None:
        raise HandlerError

    @get("/late")
    async def late() -> Stream:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            raise HandlerError

        return Stream(pieces())

    @get("/teapot", status_code=418, sync_to_thread=False)
    def teapot() -> str:
        return "teapot"

    @get("/compressed", sync_to_thread=False)
    def compressed() -> Response[bytes]:
        return Response(http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    @get("/sub/{name:str}", sync_to_thread=False)
    def sub(name: FromPath[str]) -> str:
        return f"mounted {name}"

    @get("/metrics", sync_to_thread=False)
    def metrics() -> str:
        return "metrics"

    mounted = Router("/mounted", route_handlers=[sub])
    return [home, item, echo, ignore, stream, slow, endless, fail, late, teapot, compressed, mounted, metrics]


class TestLitestar(HttpServerContract):
    notices_clients_that_wait = True

    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        app: Any = Litestar(handlers(stage), openapi_config=None)
        return uvicorn_server(MetricsMiddleware(app) if tracked else app)


def test_as_a_middleware_of_litestar_it_counts_what_is_routed(recorded_metrics: RecordedMetrics) -> None:
    middleware = DefineMiddleware(Tracked, app_type="app_api")
    with TestClient(Litestar(handlers(Stage()), middleware=[middleware], openapi_config=None)) as client:
        assert client.get("/items/1").text == "item 1"
        assert client.get("/mounted/sub/x").text == "mounted x"
    assert [exchange.resource for exchange in recorded_metrics.exchanges] == ["items/{item_id}", "mounted/sub/{name}"]


def test_applications_within_applications(recorded_metrics: RecordedMetrics) -> None:
    async def leaf(request: Any) -> PlainTextResponse:
        return PlainTextResponse("leaf")

    inner = Starlette(
        routes=[
            Route("/leaf/{leaf}/", leaf)  # Litestar adds the slash at the end
        ]
    )
    mount = asgi("/starlette", is_mount=True, copy_scope=False)(inner)
    litestar: Any = Litestar([*handlers(Stage()), mount], openapi_config=None)
    outer = Starlette(routes=[Mount("/outer/{tenant}", litestar)])
    with TestClient(Tracked(outer)) as client:
        assert client.get("/outer/acme/items/1").text == "item 1"
        assert client.get("/outer/acme/nothing").status_code == 404
    with TestClient(Tracked(litestar)) as client:
        assert client.get("/starlette/leaf/1").text == "leaf"
        assert client.get("/starlette/nothing").status_code == 404
    assert [exchange.resource for exchange in recorded_metrics.exchanges] == [
        "outer/{tenant}/items/{item_id}",
        "outer/{tenant}/{path}",
        "starlette/leaf/{leaf}",
        "starlette/{path}",
    ]
