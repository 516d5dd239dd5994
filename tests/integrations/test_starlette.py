import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage
from serving import uvicorn_server


def application(stage: Stage, middleware: list[Middleware] | None = None) -> Starlette:
    async def home(request: Request) -> Response:
        return PlainTextResponse("home")

    async def item(request: Request) -> Response:
        return PlainTextResponse(f"item {request.path_params['item_id']}")

    async def echo(request: Request) -> Response:
        return Response(await request.body())

    async def ignore(request: Request) -> Response:
        return Response(status_code=204)

    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.to_thread(stage.wait)
            yield "two"

        return StreamingResponse(pieces())

    async def slow(request: Request) -> Response:
        await asyncio.to_thread(stage.wait)
        return PlainTextResponse("slow")

    async def endless(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(http_server.MOST_PIECES):
                yield http_server.PIECE
                await asyncio.sleep(0)  # lets the server see that the client has gone

        return StreamingResponse(pieces())

    async def fail(request: Request) -> Response:
        raise HandlerError

    async def late(request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            raise HandlerError

        return StreamingResponse(pieces())

    async def teapot(request: Request) -> Response:
        return PlainTextResponse("teapot", 418)

    async def compressed(request: Request) -> Response:
        return Response(http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    async def sub(request: Request) -> Response:
        return PlainTextResponse(f"mounted {request.path_params['name']}")

    routes: list[Any] = [
        Route("/", home),
        Route("/items/{item_id:str}", item),
        Route("/echo", echo, methods=["POST"]),
        Route("/ignore", ignore, methods=["POST"]),
        Route("/stream", stream),
        Route("/slow", slow),
        Route("/endless", endless),
        Route("/fail", fail),
        Route("/late", late),
        Route("/teapot", teapot),
        Route("/compressed", compressed),
        Mount("/mounted", app=Starlette(routes=[Route("/sub/{name}", sub)])),
        Route("/metrics", home),
    ]
    return Starlette(routes=routes, middleware=middleware)


class TestStarlette(HttpServerContract):
    notices_clients_that_wait = True

    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        return uvicorn_server(application(stage, [Middleware(MetricsMiddleware)] if tracked else []))


class TestAroundTheWhole(HttpServerContract):
    notices_clients_that_wait = True

    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        app = application(stage)
        return uvicorn_server(MetricsMiddleware(app) if tracked else app)
