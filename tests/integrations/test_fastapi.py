import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.routing import Host, Mount, Route

from llm_common.integrations import route_templates
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.testing import RecordedMetrics
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage
from serving import uvicorn_server


def application(stage: Stage) -> FastAPI:
    app = FastAPI(default_response_class=PlainTextResponse)
    items, sub = APIRouter(prefix="/items"), FastAPI(default_response_class=PlainTextResponse)

    @app.get("/")
    async def home() -> str:
        return "home"

    @items.get("/{item_id}")
    async def item(item_id: str) -> str:
        return f"item {item_id}"

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.post("/ignore", status_code=204)
    async def ignore() -> None: ...

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.to_thread(stage.wait)
            yield "two"

        return StreamingResponse(pieces())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.to_thread(stage.wait)
        return "slow"

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(http_server.MOST_PIECES):
                yield http_server.PIECE
                await asyncio.sleep(0)  # lets the server see that the client has gone

        return StreamingResponse(pieces())

    @app.get("/fail")
    async def fail() -> None:
        raise HandlerError

    @app.get("/late")
    async def late() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            raise HandlerError

        return StreamingResponse(pieces())

    @app.get("/teapot", status_code=418)
    def teapot() -> str:
        return "teapot"

    @app.get("/compressed")
    def compressed() -> Response:
        return Response(http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    @sub.get("/sub/{name}")
    def mounted(name: str) -> str:
        return f"mounted {name}"

    @app.get("/metrics")
    def metrics() -> str:
        return "metrics"

    app.include_router(items)
    app.mount("/mounted", sub)
    return app


class TestFastAPI(HttpServerContract):
    notices_clients_that_wait = True

    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        app = application(stage)
        if tracked:
            app.add_middleware(MetricsMiddleware, app_type="app_api")
        return uvicorn_server(app)


def resources(recorded: RecordedMetrics) -> list[tuple[str, str]]:
    return [(exchange.status, exchange.resource) for exchange in recorded.exchanges]


@pytest.fixture(params=["added", "around"])
def client(request: pytest.FixtureRequest, app: FastAPI) -> TestClient:
    if request.param == "added":
        app.add_middleware(MetricsMiddleware)
        return TestClient(app, raise_server_exceptions=False)
    return TestClient(MetricsMiddleware(app), raise_server_exceptions=False)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """An application with every way to bring a route in."""
    (tmp_path / "style.css").write_text("body {}")
    (tmp_path / "index.html").write_text("<html>")

    async def plain(request: Request) -> Response:
        return Response("plain")

    def handler() -> str:
        return "ok"

    deepest, deep, mounting = APIRouter(prefix="/deepest"), APIRouter(), APIRouter()
    deepest.add_api_route("/{last:path}", handler)
    deepest.add_route("/plain/{one}", plain)
    deep.include_router(deepest, prefix="/deeper")
    deep.add_api_route("/leaf/{leaf}", handler)
    sub_sub, sub = FastAPI(), FastAPI()
    sub_sub.add_api_route("/end/{end_id}", handler)
    sub.mount("/inner/{inner}", sub_sub)
    sub.add_api_route("/", handler)
    sub.add_api_route("/{name}/x", handler)
    mounting.mount("/in-router", sub)
    app = FastAPI()
    app.include_router(deep, prefix="/deep/{tenant}")
    app.include_router(mounting, prefix="/outer")
    app.mount("/sub/{tenant_id:int}", sub)
    app.mount("/wrapped", GZipMiddleware(sub))
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.router.routes.append(Host("admin.example.org", app=sub))
    app.add_route("/starlette/{one:int}", plain)
    app.add_api_route("/items/{item_id}", handler)
    app.add_api_route("/items/{item_id}/", handler, methods=["PUT"])
    app.add_api_route("/slashed/{one}/", handler)
    app.frontend("/front", directory=tmp_path)
    return app


@pytest.mark.parametrize(
    ("path", "status", "resource"),
    [
        ("/items/1?x=2", "200", "items/{item_id}"),
        ("/deep/acme/leaf/5", "200", "deep/{tenant}/leaf/{leaf}"),
        ("/deep/acme/deeper/deepest/a/b/c", "200", "deep/{tenant}/deeper/deepest/{last}"),
        ("/sub/7/", "200", "sub/{tenant_id}"),
        ("/sub/7/me/x", "200", "sub/{tenant_id}/{name}/x"),
        ("/sub/8/me/x", "200", "sub/{tenant_id}/{name}/x"),
        ("/sub/7/inner/9/end/3", "200", "sub/{tenant_id}/inner/{inner}/end/{end_id}"),
        ("/sub/7/none", "404", "{unknown}"),
        ("/outer/in-router/me/x", "200", "outer/in-router/{name}/x"),
        ("/wrapped/me/x", "200", "wrapped/{name}/x"),
        ("/static/style.css", "200", "static/{path}"),
        ("/static/none.css", "404", "static/{path}"),
        ("/starlette/5", "200", "starlette/{one}"),
        ("/front/style.css", "200", "front/{path}"),
        ("/front/", "200", "front/{path}"),
        ("/slashed/1", "307", "slashed/{one}"),
        ("/none", "404", "{unknown}"),
        ("/", "404", "{unknown}"),
    ],
)
def test_resources(
    client: TestClient, recorded_metrics: RecordedMetrics, path: str, status: str, resource: str
) -> None:
    for _ in range(2):  # the second time from what is remembered
        client.get(path, follow_redirects=False)
    assert resources(recorded_metrics) == [(status, resource)] * 2


def test_a_host_counts_with_the_routes_behind_it(client: TestClient, recorded_metrics: RecordedMetrics) -> None:
    client.get("/me/x", headers={"host": "admin.example.org"})
    client.get("/none/of/them", headers={"host": "admin.example.org"})
    assert resources(recorded_metrics) == [("200", "{name}/x"), ("404", "{unknown}")]


def test_a_wrong_method_counts_with_the_route_that_has_others(
    client: TestClient, recorded_metrics: RecordedMetrics
) -> None:
    client.delete("/items/1")
    client.delete("/sub/7/me/x")
    client.put("/deep/acme/leaf/1")
    assert resources(recorded_metrics) == [
        ("405", "items/{item_id}"),
        ("405", "sub/{tenant_id}/{name}/x"),
        ("405", "deep/{tenant}/leaf/{leaf}"),
    ]


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("sent", ["/api/items/1", "/items/1"])
def test_the_root_path_of_a_proxy_is_no_part_of_the_resource(
    recorded_metrics: RecordedMetrics, around: bool, sent: str
) -> None:
    app = FastAPI(root_path="/api")
    app.add_api_route("/items/{item_id}", lambda item_id: item_id)
    sub = FastAPI()
    sub.add_api_route("/x", lambda: 1)
    app.mount("/sub", sub)
    if not around:
        app.add_middleware(MetricsMiddleware)
    client = TestClient(MetricsMiddleware(app) if around else app)
    assert client.get(sent).status_code == 200
    assert client.get("/api/sub/x").status_code == 200
    assert client.get("/api/docs").status_code == 200
    assert [exchange.resource for exchange in recorded_metrics.exchanges] == ["items/{item_id}", "sub/x"]


def test_background_tasks_do_not_count_and_what_they_raise_is_no_status(recorded_metrics: RecordedMetrics) -> None:
    app = FastAPI()
    seen: list[int] = []

    async def fail() -> None:
        seen.append(len(recorded_metrics.exchanges))
        raise HandlerError

    @app.get("/")
    async def home(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "home"

    app.add_middleware(MetricsMiddleware)
    with pytest.raises(HandlerError):
        TestClient(app).get("/")
    assert seen == [1]  # recorded before the task began
    recorded_metrics.assert_http(resource="/", status=200, times=1)


def test_the_exception_of_a_handler_is_the_same_object(recorded_metrics: RecordedMetrics) -> None:
    error = HandlerError("this one")
    app = FastAPI()

    @app.get("/")
    async def home() -> None:
        raise error

    app.add_middleware(MetricsMiddleware)
    with pytest.raises(HandlerError) as raised:
        TestClient(app).get("/")
    assert raised.value is error
    recorded_metrics.assert_http(status=500)


def test_websockets_and_the_lifespan_pass_untouched(recorded_metrics: RecordedMetrics) -> None:
    app = FastAPI()

    @app.websocket("/ws/{name}")
    async def socket(socket: WebSocket, name: str) -> None:
        await socket.accept()
        await socket.send_text(f"hello {name}")
        await socket.close()

    with TestClient(MetricsMiddleware(app)) as client, client.websocket_connect("/ws/me") as connected:
        assert connected.receive_text() == "hello me"
    assert recorded_metrics.exchanges == []


def test_a_middleware_that_compresses_inside_counts_compressed_bytes(recorded_metrics: RecordedMetrics) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "x" * 10_000)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(MetricsMiddleware)
    response = TestClient(app).get("/", headers={"accept-encoding": "gzip"})
    assert int(response.headers["content-length"]) == recorded_metrics.exchanges[0].response_bytes < 1000


def test_middlewares_of_the_older_kind_and_answers_before_the_router(recorded_metrics: RecordedMetrics) -> None:
    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if "authorization" not in request.headers:
            return PlainTextResponse("no", 401)
        return await call_next(request)

    app = FastAPI()
    app.add_api_route("/items/{item_id}", lambda item_id: item_id)
    app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
    app.add_middleware(MetricsMiddleware)
    client = TestClient(app)
    client.get("/items/1")
    client.get("/none")
    client.get("/items/1", headers={"authorization": "x"})
    assert resources(recorded_metrics) == [("401", "items/{item_id}"), ("401", "{unknown}"), ("200", "items/{item_id}")]


def test_two_middlewares_count_once(recorded_metrics: RecordedMetrics) -> None:
    sub, app = FastAPI(), FastAPI()
    sub.add_api_route("/x", lambda: 1)
    sub.add_middleware(MetricsMiddleware)
    app.mount("/sub", sub)
    app.add_middleware(MetricsMiddleware)
    app.add_middleware(MetricsMiddleware)
    TestClient(app).get("/sub/x")
    assert resources(recorded_metrics) == [("200", "sub/x")]


def test_a_mounted_application_alone_counts_with_the_prefix_left_out(recorded_metrics: RecordedMetrics) -> None:
    sub, app = FastAPI(), FastAPI()
    sub.add_api_route("/x/{y}", lambda y: y)
    sub.add_middleware(MetricsMiddleware)
    app.mount("/sub", sub)
    TestClient(app).get("/sub/x/1")
    assert resources(recorded_metrics) == [("200", "x/{y}")]


def test_files_count_by_what_is_sent(recorded_metrics: RecordedMetrics, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"x" * 100_000)
    app = FastAPI()
    app.add_api_route("/file", lambda: FileResponse(path))
    app.add_middleware(MetricsMiddleware)
    client = TestClient(app)
    client.get("/file")
    client.get("/file", headers={"range": "bytes=0-9"})
    assert [(one.status, one.response_bytes) for one in recorded_metrics.exchanges] == [("200", 100_000), ("206", 10)]


def test_pure_starlette_inside_a_mount_of_a_mount(recorded_metrics: RecordedMetrics) -> None:
    async def plain(request: Request) -> Response:
        return Response("plain")

    app = FastAPI()
    app.router.routes.append(Mount("/a", routes=[Mount("/b/{c}", routes=[Route("/d/{e:int}", plain)])]))
    app.add_middleware(MetricsMiddleware)
    assert TestClient(app).get("/a/b/1/d/2").status_code == 200
    assert resources(recorded_metrics) == [("200", "a/b/{c}/d/{e}")]


def test_a_middleware_that_is_made_during_the_first_request_counts_nothing_twice(
    recorded_metrics: RecordedMetrics,
) -> None:
    """Starlette builds the middlewares of an application when it gets its first request."""
    sub, app = FastAPI(), FastAPI()
    sub.add_api_route("/x", lambda: 1)
    sub.add_middleware(MetricsMiddleware)
    app.mount("/sub", sub)
    app.add_middleware(MetricsMiddleware)
    for _ in range(2):
        TestClient(app).get("/sub/x")
    assert resources(recorded_metrics) == [("200", "sub/x")] * 2


def test_only_so_many_prefixes_of_mounts_are_remembered(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_templates, "KNOWN_PREFIXES", 2)
    sub, app = FastAPI(), FastAPI()
    sub.add_api_route("/x", lambda: 1)
    app.mount("/sub/{tenant}", sub)
    app.add_middleware(MetricsMiddleware)
    client = TestClient(app)
    for tenant in (1, 2, 3, 4, 1):
        client.get(f"/sub/{tenant}/x")
    assert resources(recorded_metrics) == [("200", "sub/{tenant}/x")] * 5
