"""Which route a request took, in applications of Starlette's kind (FastAPI is one) and in Litestar.

An application writes into the scope what it found; where that isn't enough, behind mounts for example, its routes are
matched again. No framework is imported for that: what a route is asked for, every version of them has.
"""

import logging
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, cast

from llm_common.http_labels import UNKNOWN, template_label

logger = logging.getLogger("llm_common")

Scope = MutableMapping[str, Any]

TRACKED = "llm_common.tracked"
"""Stands in the scope of a request that a middleware counts, so that another one further in leaves it alone."""

KNOWN_PREFIXES = 1024
"""How many prefixes of mounted applications are remembered with their templates."""


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

    def __init__(self, app: object) -> None:
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
