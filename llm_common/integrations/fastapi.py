"""What FastAPI and Starlette applications of the older package import: a middleware function and the endpoint.

New applications take :class:`llm_common.integrations.asgi.MetricsMiddleware`, which costs a fraction of a middleware
function and sees the bytes of requests too.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakKeyDictionary

from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from llm_common.exposition import respond
from llm_common.http_exchange import Exchange, declared_length
from llm_common.http_labels import CLIENT_GONE, SERVER, UNHANDLED, status_label
from llm_common.integrations.excluding import excluder
from llm_common.integrations.route_templates import TRACKED, RouteTemplates

_excluded = excluder()
_templates: WeakKeyDictionary[object, RouteTemplates] = WeakKeyDictionary()
"""For each application; a function has no place of its own to keep them."""


async def fastapi_tracking_middleware(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Count a request: ``app.middleware("http")(fastapi_tracking_middleware)``.

    It is recorded when the last byte of the response was sent. The size of the request's body is what its
    ``Content-Length`` says, since its bytes don't pass here.
    """
    scope = request.scope
    path, root_path, app = scope["path"], scope.get("root_path", ""), scope.get("app", fastapi_tracking_middleware)
    if TRACKED in scope or _excluded(path.removeprefix(root_path)):
        return await call_next(request)
    templates = _templates.get(app) or _templates.setdefault(app, RouteTemplates(app))

    def resource(status: object) -> str:
        return templates.resource(scope, path, root_path, status)

    scope[TRACKED] = True
    exchange = Exchange(SERVER, request.method)
    exchange.request_bytes = declared_length(request.headers.get("content-length")) or 0
    try:
        response: Any = await call_next(request)
    except BaseException as exception:
        _left_by(exception, exchange, resource)
        raise
    response.body_iterator = _counted(response.body_iterator, exchange, resource, response.status_code)
    return response  # type: ignore[no-any-return]


async def _counted(
    body: AsyncIterator[Any], exchange: Exchange, resource: Callable[[object], str], status: int
) -> AsyncIterator[Any]:
    """Yield the parts of a body, and record the exchange after the last."""
    try:
        async for part in body:
            if isinstance(part, bytes | memoryview) and exchange.method != "HEAD":
                exchange.response_bytes += len(part)
            yield part
    except BaseException as exception:
        _left_by(exception, exchange, resource)
        raise
    exchange.end(status_label(status), resource(status))


def _left_by(exception: BaseException, exchange: Exchange, resource: Callable[[object], str]) -> None:
    gone = not isinstance(exception, Exception)  # a cancellation, where the client has gone
    exchange.end(CLIENT_GONE if gone else UNHANDLED, resource(None), exception)


async def fastapi_endpoint_for_prometheus(request: Request = None) -> Response:  # type: ignore[assignment]
    """Serve the metrics: ``app.get("/metrics")(fastapi_endpoint_for_prometheus)``; rendered in a thread.

    As a route of FastAPI or Starlette it is given the request, and answers in the format that is asked for.
    """
    asked: Request | None = request  # FastAPI gives the request to no parameter whose type is optional
    if asked is None:
        answer = await run_in_threadpool(respond, "GET", "", {}, None)
    else:
        answer = await run_in_threadpool(respond, asked.method, asked.url.query, asked.headers, None)
    return Response(answer.body, answer.status, dict(answer.headers))
