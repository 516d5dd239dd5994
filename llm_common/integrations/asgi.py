"""HTTP metrics for applications behind ASGI: FastAPI, Starlette, Litestar, or any other.

A pure ASGI middleware: it buffers nothing and imports no framework.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, cast

from llm_common.http_exchange import Exchange
from llm_common.http_labels import CLIENT_GONE, SERVER, UNHANDLED, UNKNOWN, status_label, template_label
from llm_common.integrations.excluding import DEFAULT_EXCLUDE, excluder

logger = logging.getLogger("llm_common")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

TRACKED = "llm_common.tracked"
"""Stands in the scope of a request that a middleware counts, so that another one further in leaves it alone."""

NO_BODY = frozenset({204, 304})
"""The statuses whose responses have no body, whatever the application sends (RFC 9110, section 6.4.1)."""

KNOWN_PREFIXES = 1024
"""How many prefixes of mounted applications are remembered with their templates."""


class MetricsMiddleware:
    """Counts every HTTP request: ``app.add_middleware(MetricsMiddleware)``, or ``app = MetricsMiddleware(app)``.

    The outermost middleware sees what is really sent, compressed bodies included; so add it last. A request is recorded
    when the last byte of its response was sent; background tasks that run after it don't count. ``exclude`` are paths
    that aren't counted (:func:`~llm_common.integrations.excluding.excluder`). WebSockets and the lifespan pass through.
    """

    def __init__(self, app: ASGIApp, *, app_type: str = SERVER, exclude: str | Iterable[str] = DEFAULT_EXCLUDE) -> None:
        self.app = app
        self._app_type = app_type
        self._excluded = excluder(exclude)
        self._templates = RouteTemplates(app)
        root_path = getattr(app, "root_path", "")
        self._own_root_path: str = root_path if isinstance(root_path, str) else ""
        """FastAPI's own setting, which it puts in the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it."""
        if scope["type"] != "http" or TRACKED in scope:
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        root_path: str = self._own_root_path or scope.get("root_path", "")
        if self._excluded(path.removeprefix(root_path) if root_path else path):
            await self.app(scope, receive, send)
            return
        scope[TRACKED] = True
        request = Request(self._app_type, RequestRoute(scope, path, root_path, self._templates), receive, send)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as exception:
            request.left_by(exception)
            raise
        if not request.ended:
            request.returned()


class Request(Exchange):
    """One request under way: it passes messages on, in both directions, and counts their bytes."""

    __slots__ = ("_client_gone", "_receive", "_route", "_send", "_server", "_status")

    def __init__(self, app_type: str, route: "RequestRoute", receive: Receive, send: Send) -> None:
        super().__init__(app_type, route.scope["method"])
        self._route = route
        self._receive = receive
        self._send = send
        self._server = getattr(receive, "__self__", None)
        self._status: object = None
        """What the response began with; ``None`` until then."""
        self._client_gone = False

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self.request_bytes += len(message.get("body", b""))
        elif kind == "http.disconnect":
            self._client_gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends. The request ends with the last byte of the body."""
        kind = message["type"]
        size, last, gone = 0, False, False
        if kind == "http.response.body":
            size = len(message.get("body", b""))
            last = not message.get("more_body", False)
            gone = last and self._is_client_gone()  # now, since at the end every connection may look like that
        elif kind == "http.response.start":
            if self._status is None:
                self._status = message["status"]
        elif kind in FILE_PARTS:
            size = _file_size(message)
            last = not message.get("more_body", False)
            gone = last and self._is_client_gone()
        try:
            await self._send(message)
        except OSError:  # what a server raises where the client has gone, from version 2.4 of the specification on
            self._client_gone = True
            raise
        if size and self._status not in NO_BODY and self._route.scope["method"] != "HEAD":
            self.response_bytes += size
        if last and not self.ended:
            self.end(CLIENT_GONE if gone else status_label(self._status), self._route.resource(self._status))

    def left_by(self, exception: BaseException) -> None:
        """End the request, unless its response was complete before the application raised ``exception``."""
        if not self.ended:
            # What isn't an Exception is a cancellation: by a server whose client has gone, or that is about to stop.
            gone = not isinstance(exception, Exception) or self._is_client_gone()
            self.end(CLIENT_GONE if gone else UNHANDLED, self._route.resource(self._status), exception)

    def returned(self) -> None:
        """End the request, whose application returned without a complete response."""
        self.end(CLIENT_GONE if self._is_client_gone() else UNHANDLED, self._route.resource(self._status))

    def _is_client_gone(self) -> bool:
        # A server may take without complaint what nobody receives any more. uvicorn then has this attribute.
        return self._client_gone or bool(getattr(self._server, "disconnected", False))


FILE_PARTS = frozenset({"http.response.zerocopysend", "http.response.pathsend"})
"""Messages by which the server itself sends a file, or a part of it, as the body."""


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


class RequestRoute:
    """What is known of a request's route: before the application has it, its path; afterwards, the template too."""

    __slots__ = ("app", "path", "root_path", "scope", "templates")

    def __init__(self, scope: Scope, path: str, root_path: str, templates: "RouteTemplates") -> None:
        self.scope = scope
        self.path = path
        self.root_path = root_path
        self.templates = templates
        self.app = scope.get("app")
        """The application that had the request before the middleware, where one is built into it."""

    def resource(self, status: object) -> str:
        """Return the request's resource, now that the application has handled it."""
        try:
            template = self._template(status)
        except Exception as fault:  # whatever a route that isn't of the usual kind may raise
            self.templates.log(fault)
            template = None
        return UNKNOWN if template is None else template_label(template)

    def _template(self, status: object) -> str | None:
        scope = self.scope
        route = scope.get("route")
        fastapi = scope.get("fastapi")
        if fastapi:
            context = fastapi.get("effective_route_context")  # a route of a router that was included
            if context is not None:
                route = context.starlette_route or context
            elif fastapi.get("frontend_path") is not None:
                above = self.path.removesuffix(fastapi["frontend_path"]).removeprefix(self.root_path)
                return above.rstrip("/") + "/{path}"
        if scope.get("root_path", "") == self.root_path:  # else there was a mount on the way
            template: str | None = getattr(route, "path_format", None)
            litestar: str | None = scope.get("path_template")
            if litestar == "":
                return self._mounted_in_litestar(template or "/{path}")
            if template is not None or litestar is not None:
                return template or litestar
            if "router" in scope and "endpoint" not in scope and status != TEMPORARY_REDIRECT:
                return None  # the router has seen this very scope, and has found nothing
        return self.templates.found(self, scope, route, status)

    def _mounted_in_litestar(self, template: str) -> str | None:
        """Return ``template`` with the prefix, which Litestar has taken off the path of the scope."""
        path, rest = self.path.removeprefix(self.root_path).rstrip("/"), self.scope["path"].rstrip("/")
        return path.removesuffix(rest) + template if path.endswith(rest) else None

    def before(self, **changes: Any) -> Scope:
        """Return the scope as it was before the application had it, for routes to match."""
        fresh = {**self.scope, "path": self.path, "root_path": self.root_path, "path_params": {}, **changes}
        for key in ("fastapi", "route", "endpoint", "path_template"):
            fresh.pop(key, None)
        return fresh


class RouteTemplates:
    """Finds templates by matching routes again, where the scope doesn't tell: behind mounts, and for redirects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._known: dict[tuple[str, int], tuple[object, str]] = {}
        self._logged = False

    def log(self, fault: Exception) -> None:
        """Log that no template could be found, once as a warning."""
        level = logging.DEBUG if self._logged else logging.WARNING
        self._logged = True
        logger.log(level, "the route of a request can't be told; it is counted as %s", UNKNOWN, exc_info=fault)

    def found(self, request: RequestRoute, scope: Scope, route: object, status: object) -> str | None:
        """Return the template of the route that a request took, or ``None`` where it took none."""
        key = (scope.get("root_path", ""), id(route))
        known = self._known.get(key)
        if known is not None and known[0] is route:
            return known[1]
        routes = _routes(self._app) or _routes(request.app)
        if not routes:
            inner = getattr(route, "path_format", "")
            return scope.get("path_template", "") + inner or None
        outer = scope.get("path_template")
        _, template = _match(routes, request.before(), outer)
        if template is None and status == TEMPORARY_REDIRECT:
            other = request.path[:-1] if request.path.endswith("/") else f"{request.path}/"
            _, template = _match(routes, request.before(path=other), outer)
        if template is not None and hasattr(route, "endpoint"):
            if len(self._known) >= KNOWN_PREFIXES:
                self._known.clear()
            self._known[key] = (route, template)
        return template


TEMPORARY_REDIRECT = 307
"""How Starlette and FastAPI send a request to the same path with or without the slash at its end."""

NONE, PARTIAL, FULL = 0, 1, 2
"""How well a route matches: the values of Starlette's ``Match``."""


def _routes(app: object) -> Sequence[Any]:
    """Return the routes of an application of Starlette's kind, also from inside its middlewares; else nothing."""
    while app is not None:
        routes = getattr(app, "routes", None)
        if routes and all(hasattr(route, "matches") for route in routes):
            return cast("Sequence[Any]", routes)
        app = getattr(app, "app", None)
    return ()


def _match(routes: Iterable[Any], scope: Scope, inner: str | None) -> tuple[int, str | None]:
    """Return how well the best of ``routes`` matches, and its template; the first that matches in full is taken.

    ``inner`` is the template within a mounted application that isn't of Starlette's kind, where it tells one.
    """
    best: tuple[int, str | None] = (NONE, None)
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:  # FastAPI's way to keep a router that was included
            found = _match([context.starlette_route or context for context in contexts()], scope, inner)
        else:
            found = _match_one(route, scope, inner)
        if found[0] == FULL:
            return found
        if found[0] > best[0]:
            best = found
    return best


def _match_one(route: Any, scope: Scope, inner: str | None) -> tuple[int, str | None]:
    match, child_scope = route.matches(scope)
    quality: int = match.value
    if quality == NONE:
        return NONE, None
    is_mount = "root_path" in child_scope
    if not is_mount and not hasattr(route, "host"):
        return quality, getattr(route, "path_format", None)
    prefix: str = route.path_format.removesuffix("/{path}") if is_mount else ""
    routes = _routes(route.app)
    if not routes:
        return quality, prefix + (inner or "/{path}")
    _, template = _match(routes, {**scope, **child_scope}, inner)
    return quality, None if template is None else prefix + template
