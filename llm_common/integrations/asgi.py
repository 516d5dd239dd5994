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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it."""
        if scope["type"] != "http" or TRACKED in scope:
            await self.app(scope, receive, send)
            return
        route = RequestRoute(scope, self._templates)
        if self._excluded(route.path.removeprefix(route.root_path)):
            await self.app(scope, receive, send)
            return
        scope[TRACKED] = True
        request = Request(self._app_type, scope["method"], route, receive, send)
        try:
            await self.app(scope, request.receive, request.send)
        except BaseException as exception:
            request.left_by(exception)
            raise
        request.returned()


class Request(Exchange):
    """One request under way: it passes messages on, in both directions, and counts their bytes."""

    __slots__ = ("_client_gone", "_receive", "_route", "_send", "_sends_body", "_status")

    def __init__(self, app_type: str, method: str, route: "RequestRoute", receive: Receive, send: Send) -> None:
        super().__init__(app_type, method)
        self._route = route
        self._receive = receive
        self._send = send
        self._status: object = None
        """What the response began with; ``None`` until then."""
        self._sends_body = method != "HEAD"
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
        if kind == "http.response.start" and self._status is None:
            self._status = message["status"]
            if self._status in NO_BODY:
                self._sends_body = False
        last = kind in LAST_PARTS and not message.get("more_body", False)
        # A server may take what nobody receives any more without complaint. uvicorn then knows it, until the end.
        gone = last and self._is_client_gone()
        try:
            await self._send(message)
        except OSError:  # what a server raises where the client has gone, from version 2.4 of the specification on
            self._client_gone = True
            raise
        if kind in LAST_PARTS and self._sends_body:
            self.response_bytes += _size(message)
        if last:
            self._end(CLIENT_GONE if gone else status_label(self._status))

    def left_by(self, exception: BaseException) -> None:
        """End the request, unless its response was complete before the application raised ``exception``."""
        # What isn't an Exception is a cancellation: by a server whose client has gone, or that is about to stop.
        gone = not isinstance(exception, Exception) or self._is_client_gone()
        self._end(CLIENT_GONE if gone else UNHANDLED, exception)

    def returned(self) -> None:
        """End the request, unless its response was complete before the application returned."""
        if not self.ended:
            self._end(CLIENT_GONE if self._is_client_gone() else UNHANDLED)

    def _is_client_gone(self) -> bool:
        return self._client_gone or bool(getattr(getattr(self._receive, "__self__", None), "disconnected", False))

    def _end(self, status: str, exception: BaseException | None = None) -> None:
        if not self.ended:
            self.end(status, self._route.resource(self._status), exception)


LAST_PARTS = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})
"""The messages that carry the body, or its last part."""


def _size(message: Message) -> int:
    """Return how many bytes of the body a message stands for."""
    body = message.get("body")
    if body is not None:
        return len(body)
    try:
        if "path" in message:  # pathsend: a whole file, sent by the server itself
            return os.stat(message["path"]).st_size
        if "file" in message:  # zerocopysend: from a file that is open
            count: int | None = message.get("count")
            if count is None:
                count = os.fstat(message["file"].fileno()).st_size - message.get("offset", 0)
            return int(count)
    except (OSError, TypeError, ValueError):
        pass
    return 0


class RequestRoute:
    """What is known of a request's route: before the application has it, its path; afterwards, the template too."""

    __slots__ = ("_app", "_scope", "_templates", "path", "root_path")

    def __init__(self, scope: Scope, templates: "RouteTemplates") -> None:
        self._scope = scope
        self._templates = templates
        self._app = scope.get("app")
        self.path: str = scope["path"]
        self.root_path: str = templates.own_root_path or scope.get("root_path", "")

    def resource(self, status: object) -> str:
        """Return the request's resource, now that the application has handled it."""
        try:
            template = self._template(status)
        except Exception as fault:  # whatever a route that isn't of the usual kind may raise
            self._templates.log(fault)
            template = None
        return UNKNOWN if template is None else template_label(template)

    def _template(self, status: object) -> str | None:
        scope = self._scope
        route = scope.get("route")
        fastapi = scope.get("fastapi")
        if fastapi:
            context = fastapi.get("effective_route_context")  # a route of a router that was included
            if context is not None:
                route = context.starlette_route or context
            elif fastapi.get("frontend_path") is not None:
                above = self.path.removesuffix(fastapi["frontend_path"]).removeprefix(self.root_path)
                return above.rstrip("/") + "/{path}"
        mounted = scope.get("root_path", "") != self.root_path
        if not mounted:
            template: str | None = getattr(route, "path_format", None) or scope.get("path_template")  # Litestar's
            if template is not None:
                return template
            if "router" in scope and "endpoint" not in scope and status != TEMPORARY_REDIRECT:
                return None  # the router has seen this very scope, and has found nothing
        return self._templates.found(self, scope, route, status)

    def before(self, **changes: Any) -> Scope:
        """Return the scope as it was before the application had it, for routes to match."""
        fresh = {**self._scope, "path": self.path, "root_path": self.root_path, "path_params": {}, **changes}
        for key in ("fastapi", "route", "endpoint", "path_template"):
            fresh.pop(key, None)
        return fresh

    @property
    def app(self) -> object:
        """The application that had the request before the middleware, where one is built into it."""
        return self._app


class RouteTemplates:
    """Finds templates by matching routes again, where the scope doesn't tell: behind mounts, and for redirects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        own = getattr(app, "root_path", "")
        self.own_root_path: str = own if isinstance(own, str) else ""
        """FastAPI's own setting, which it puts in the scope."""
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
