"""FastAPI applications with and without a middleware that counts requests, and what sends them requests."""

import asyncio
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from starlette_exporter import PrometheusMiddleware

from llm_common import configure
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.integrations.asgi import MetricsMiddleware

NUMBER = 50
"""How many requests :func:`serve` sends."""

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/items/5",
    "raw_path": b"/items/5",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"bench"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
}


def application() -> FastAPI:
    """Return an application with as many routes as a small service has."""
    app = FastAPI()

    @app.get("/items/{item_id}")
    async def item(item_id: int) -> dict[str, int]:
        return {"id": item_id}

    for number in range(20):
        app.add_api_route(f"/others/{number}/{{name}}", lambda name: name)
    return app


def applications() -> dict[str, FastAPI]:
    """Return the applications by the name of their middleware."""
    configure(app="bench", backends=[PrometheusBackend(CollectorRegistry())])
    ours, instrumentator, exporter = application(), application(), application()
    ours.add_middleware(MetricsMiddleware, app_type="app_api")
    Instrumentator(registry=CollectorRegistry()).instrument(instrumentator)
    exporter.add_middleware(PrometheusMiddleware)
    return {
        "no middleware": application(),
        "prometheus-fastapi-instrumentator": instrumentator,
        "starlette-exporter": exporter,
        "MetricsMiddleware": ours,
    }


def serve(app: FastAPI) -> None:
    """Send requests to an application, one after the other, by the interface that a server uses."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None: ...

    async def requests() -> None:
        for _ in range(NUMBER):
            await app({**SCOPE, "state": {}}, receive, send)

    asyncio.run(requests())
