"""HTTP metrics for applications behind ASGI: FastAPI, Starlette, Litestar, or any other.

A pure ASGI middleware: it buffers nothing and imports no framework.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from llm_common.http_exchange import Exchange
from llm_common.http_labels import CLIENT_GONE, SERVER, UNHANDLED, checked_app_type, status_label
from llm_common.integrations.excluding import DEFAULT_EXCLUDE, excluder
from llm_common.integrations.route_templates import TRACKED, RouteTemplates

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

NO_BODY = (204, 304)
"""The statuses whose responses have no body, whatever the application sends (RFC 9110, section 6.4.1)."""


class MetricsMiddleware:
    """Counts every HTTP request: ``app.add_middleware(MetricsMiddleware)``, or ``app = MetricsMiddleware(app)``.

    The outermost middleware sees what is really sent, compressed bodies included; so add it last. A request is recorded
    when the last byte of its response was sent; background tasks that run after it don't count. ``exclude`` are paths
    that aren't counted (:func:`~llm_common.integrations.excluding.excluder`). WebSockets and the lifespan pass through.
    """

    def __init__(self, app: ASGIApp, *, app_type: str = SERVER, exclude: str | Iterable[str] = DEFAULT_EXCLUDE) -> None:
        self.app = app
        self.app_type = checked_app_type(app_type)
        self.templates = RouteTemplates(app)
        self._excluded = excluder(exclude)
        root_path = getattr(app, "root_path", "")
        self._own_root_path: str = root_path if isinstance(root_path, str) else ""
        """FastAPI's own setting, which it puts in the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it."""
        if scope["type"] != "http" or TRACKED in scope:
            await self.app(scope, receive, send)
            return
        scope[TRACKED] = True  # also where the path is excluded, so that no other counts it either
        path: str = scope["path"]
        root_path: str = self._own_root_path or scope.get("root_path", "")
        if self._excluded(path.removeprefix(root_path) if root_path else path):
            await self.app(scope, receive, send)
            return
        request = Request(self, scope, path, root_path, receive, send)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as exception:
            request.left_by(exception)
            raise
        if not request.ended:
            request.returned()


class Request(Exchange):
    """One request under way: it passes messages on, in both directions, and counts their bytes."""

    __slots__ = ("_client_gone", "_path", "_receive", "_root_path", "_scope", "_send", "_status", "_templates")

    def __init__(
        self, middleware: MetricsMiddleware, scope: Scope, path: str, root_path: str, receive: Receive, send: Send
    ) -> None:
        self._templates = middleware.templates
        self._scope = scope
        self._path = path
        self._root_path = root_path
        self._receive = receive
        self._send = send
        self._status: object = None
        """What the response began with; ``None`` until then."""
        self._client_gone = False
        super().__init__(middleware.app_type, scope["method"])

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        message = await self._receive()
        kind = message.get("type")
        if kind == "http.request":
            self.request_bytes += _length(message.get("body"))
        elif kind == "http.disconnect":
            self._client_gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends. The request ends with the last byte of the body."""
        kind = message.get("type")
        size, last, gone = 0, False, False
        if kind == "http.response.start":
            if self._status is None:
                self._status = message.get("status")
        elif kind == "http.response.body" or kind in FILE_PARTS:
            body = message.get("body")
            size = len(body) if type(body) is bytes else _size(message)
            last = not message.get("more_body", False)
            gone = last and self._is_client_gone()  # now, since at the end every connection may look like that
        try:
            await self._send(message)
        except OSError:  # what a server raises where the client has gone, from version 2.4 of the specification on
            self._client_gone = True
            raise
        if size and self._status not in NO_BODY and self.method != "HEAD":
            self.response_bytes += size
        if last and not self.ended:
            self.end(CLIENT_GONE if gone else status_label(self._status), self._resource())

    def left_by(self, exception: BaseException) -> None:
        """End the request, unless its response was complete before the application raised ``exception``."""
        if not self.ended:
            # What isn't an Exception is a cancellation: by a server whose client has gone, or that is about to stop.
            gone = not isinstance(exception, Exception) or self._is_client_gone()
            self.end(CLIENT_GONE if gone else UNHANDLED, self._resource(), exception)

    def returned(self) -> None:
        """End the request, whose application returned without a complete response."""
        self.end(CLIENT_GONE if self._is_client_gone() else UNHANDLED, self._resource())

    def _is_client_gone(self) -> bool:
        # A server may take without complaint what nobody receives any more. uvicorn then has this attribute.
        return self._client_gone or getattr(getattr(self._receive, "__self__", None), "disconnected", False) is True

    def _resource(self) -> str:
        return self._templates.resource(self._scope, self._path, self._root_path, self._status)


FILE_PARTS = frozenset({"http.response.zerocopysend", "http.response.pathsend"})
"""Messages by which the server itself sends a file, or a part of it, as the body."""


def _size(message: Message) -> int:
    """Return how many bytes of the body a message stands for."""
    return _length(message.get("body")) if message["type"] == "http.response.body" else _file_size(message)


def _length(body: Any) -> int:
    """Return the length of a part of a body; 0 for what is none, about which the server will complain."""
    try:
        return len(body) if body else 0
    except TypeError:
        return 0


def _file_size(message: Message) -> int:
    """Return how many bytes of a file the server is asked to send."""
    try:
        if "path" in message:  # pathsend: a whole file
            return os.stat(message["path"]).st_size
        count: int | None = message.get("count")  # zerocopysend: a part of one that is open
        if count is None:
            count = os.fstat(message["file"].fileno()).st_size - (message.get("offset") or 0)
        return int(count)
    except (KeyError, OSError, TypeError, ValueError):  # the server will complain, where there is cause
        return 0
