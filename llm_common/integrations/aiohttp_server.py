"""HTTP metrics for aiohttp.web applications: a middleware that counts requests, and a handler that serves the metrics.

aiohttp sends a response after the middlewares have returned, and those further out may still replace it. What is really
sent goes through the request's writer, so that is where it is counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from typing import Any, cast, overload
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from llm_common.exposition import respond
from llm_common.http_exchange import Exchange, declared_length
from llm_common.http_labels import (
    CLIENT_GONE,
    SERVER,
    UNHANDLED,
    UNKNOWN,
    checked_app_type,
    status_label,
    template_label,
)
from llm_common.integrations.excluding import DEFAULT_EXCLUDE, excluder

logger = logging.getLogger("llm_common")

_NAME = "llm_common.tracked"
TRACKED: Any = web.RequestKey(_NAME, bool) if hasattr(web, "RequestKey") else _NAME
"""Stands in a request that a middleware has seen, so that another one further in leaves it alone."""

NO_BODY = frozenset({"204", "304"})
"""The statuses whose responses have no body, whatever the application sends (RFC 9110, section 6.4.1)."""

_logged: set[type[Exception]] = set()
"""The kinds of fault that were logged as a warning."""


@overload
def metrics_middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]: ...
@overload
def metrics_middleware(*, app_type: str = SERVER, exclude: str | Iterable[str] = DEFAULT_EXCLUDE) -> Middleware: ...
def metrics_middleware(
    request: web.Request | None = None,
    handler: Handler | None = None,
    *,
    app_type: str = SERVER,
    exclude: str | Iterable[str] = DEFAULT_EXCLUDE,
) -> Awaitable[web.StreamResponse] | Middleware:
    """Count every HTTP request: ``web.Application(middlewares=[metrics_middleware])``.

    With keywords it returns one that differs from it: ``metrics_middleware(exclude=("/metrics", "/admin/*"))``.
    ``exclude`` are paths that aren't counted (:func:`~llm_common.integrations.excluding.excluder`). A request is
    recorded when the last byte of its response was sent, with the status that was sent, whichever middleware made it.
    WebSockets pass through.

    Raises :class:`TypeError` where it is given something else than a request and its handler.
    """
    if request is None:
        return _middleware(app_type, exclude)
    if handler is None:
        raise TypeError(
            f"metrics_middleware() got {request!r:.100}; write web.Application(middlewares=[metrics_middleware]), "
            "or with options: middlewares=[metrics_middleware(exclude=...)]"
        )
    return _default(request, handler)


web.middleware(metrics_middleware)


def _middleware(app_type: str, exclude: str | Iterable[str]) -> Middleware:
    checked, excluded = checked_app_type(app_type), excluder(exclude)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if TRACKED in request:
            return await handler(request)
        request[TRACKED] = True
        if excluded(request.path):
            return await handler(request)
        try:
            exchange = Request(checked, request, await route_resource(request))
        except Exception as fault:  # a request or a writer of another kind than aiohttp's own
            log("a request can't be counted", fault)
            return await handler(request)
        try:
            return await handler(request)
        except BaseException:
            exchange.left_by_exception()
            raise

    return middleware


_default = _middleware(SERVER, DEFAULT_EXCLUDE)


class Request(Exchange):
    """One request under way: it counts what is written, and ends with it."""

    __slots__ = ("_headers", "_request", "_resource", "_status", "_status_without_response")

    def __init__(self, app_type: str, request: web.Request, resource: str) -> None:
        super().__init__(app_type, request.method)
        self._request = request
        self._resource = resource
        self._status = ""
        """What the response began with, three digits; empty until then."""
        self._headers: Mapping[str, str] = {}
        self._status_without_response = ""
        """What the request ends with where an exception has left the handler and no response follows."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())  # aiohttp has one for each request
        watch(request.writer, self)
        task.add_done_callback(self.handled)

    def began(self, status_line: str, headers: Mapping[str, str]) -> None:
        """Take notice of the response's beginning."""
        self._status = status_label(status_line.partition(" ")[2][:3])
        self._headers = headers
        if self._status == "101":  # a WebSocket, which is no exchange
            self.ended = True
            unwatch(self._request.writer)

    def sent(self, size: int) -> None:
        """Count so many bytes of the body; what is written before the response begins is none of it."""
        if self._status and self._request.method != "HEAD" and self._status not in NO_BODY:
            self.response_bytes += size

    def completed(self) -> None:
        """End the request, whose response was sent to its end."""
        if not self.response_bytes and self._headers.get("Accept-Ranges") == "bytes":
            # A file, which the loop sends past the writer.
            self.sent(declared_length(self._headers.get("Content-Length")) or 0)
        self._end(self._status)

    def client_gone(self) -> None:
        """End the request, whose response can't be written any more."""
        self._end(CLIENT_GONE)

    def left_by_exception(self) -> None:
        """Take notice that an exception left the handler, which may still become a response further out."""
        transport = self._request.transport
        gone = transport is None or transport.is_closing()
        self._status_without_response = CLIENT_GONE if gone else UNHANDLED

    def handled(self, task: "asyncio.Task[Any]") -> None:
        """End the request, unless it has ended, now that the server has done all that it does for it."""
        if task.cancelled() or task.exception() is None:
            self._end(CLIENT_GONE)
        else:
            self._end(self._status_without_response or UNHANDLED)

    def _end(self, status: str) -> None:
        if not self.ended:
            unwatch(self._request.writer)
            content = self._request.content
            self.request_bytes = getattr(content, "total_raw_bytes", content.total_bytes)
            self.end(status, self._resource)


def watch(writer: Any, exchange: Request) -> None:
    """Let ``exchange`` see what is written, by methods on the instance ``writer``, which serves one request."""
    write_headers, write, write_eof = writer.write_headers, writer.write, writer.write_eof
    enable_compression = writer.enable_compression

    def watched_enable_compression(*args: Any, **named: Any) -> None:
        enable_compression(*args, **named)
        writer._compress = CountedCompressor(writer._compress, exchange)

    async def watched_write_headers(status_line: str, headers: Any) -> None:
        await write_headers(status_line, headers)
        exchange.began(status_line, headers)

    async def watched_write(chunk: Any, *args: Any, **named: Any) -> None:
        left = writer.length
        try:
            await write(chunk, *args, **named)
        except OSError:
            exchange.client_gone()
            raise
        if not compresses(writer):  # what exceeds the declared length is not sent
            exchange.sent(left - writer.length if isinstance(left, int) else memoryview(chunk).nbytes)

    async def watched_write_eof(chunk: bytes = b"") -> None:
        try:
            await write_eof(chunk)
        except OSError:
            exchange.client_gone()
            raise
        if not compresses(writer):
            exchange.sent(len(chunk))
        exchange.completed()

    writer.enable_compression = watched_enable_compression
    writer.write_headers = watched_write_headers
    writer.write = watched_write
    writer.write_eof = watched_write_eof


def unwatch(writer: Any) -> None:
    """Take the methods away again, which would keep each request alive until the garbage collector comes."""
    for name in ("enable_compression", "write_headers", "write", "write_eof"):
        vars(writer).pop(name, None)


def compresses(writer: Any) -> bool:
    """Return whether the writer's compressor counts the body's bytes."""
    return isinstance(getattr(writer, "_compress", None), CountedCompressor)


class CountedCompressor:
    """A writer's compressor, whose output is what is sent."""

    def __init__(self, compressor: Any, exchange: Request) -> None:
        self._compressor = compressor
        self._exchange = exchange

    async def compress(self, data: Any) -> bytes:
        """Compress a part of the body."""
        compressed: bytes = await self._compressor.compress(data)
        self._exchange.sent(len(compressed))
        return compressed

    def flush(self, *args: Any) -> bytes:
        """Return the rest of the compressed body."""
        rest: bytes = self._compressor.flush(*args)
        self._exchange.sent(len(rest))
        return rest


async def route_resource(request: web.Request) -> str:
    """Return the resource of the route that a request took, also where only its method was wrong."""
    try:
        match = request.match_info
        resource = match.route.resource
        if resource is None and isinstance(match.http_exception, web.HTTPMethodNotAllowed):
            resources = match.apps[-1].router.resources()
            resource = next(iter([one for one in resources if (await one.resolve(request))[1]]), None)
        if resource is None:
            return UNKNOWN
        rest = "/{filename}" if isinstance(resource, web.StaticResource) else ""
        return template_label(unquote(resource.canonical) + rest)
    except Exception as fault:  # whatever a router that isn't of the usual kind may raise
        log(f"the route of a request can't be told; it is counted as {UNKNOWN}", fault)
        return UNKNOWN


def log(problem: str, fault: Exception) -> None:
    """Log ``problem``, once for each kind of ``fault`` as a warning."""
    level = logging.DEBUG if type(fault) in _logged else logging.WARNING
    _logged.add(type(fault))
    with suppress(Exception):  # a broken log handler must not reach the application either
        logger.log(level, "%s", problem, exc_info=fault)


async def metrics_handler(request: web.Request) -> web.Response:
    """Answer a request for the metrics, rendered in a thread: ``app.router.add_get("/metrics", metrics_handler)``."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    answer = await asyncio.to_thread(respond, request.method, request.rel_url.raw_query_string, headers, None)
    return web.Response(status=answer.status.value, headers=answer.headers, body=answer.body)
