"""Which route a request took, in applications of Starlette's kind (FastAPI is one) and in Litestar.

An application writes into the scope what it found; where that isn't enough, behind mounts for example, its routes are
matched again. No framework is imported for that: what a route is asked for, every version of them has.
"""

import logging
from collections.abc import Iterable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, cast

from llm_common.http_labels import MAX_RESOURCE, UNKNOWN, template_label

logger = logging.getLogger("llm_common")

Scope = MutableMapping[str, Any]

TRACKED = "llm_common.tracked"
"""Stands in the scope of a request that a middleware counts, so that another one further in leaves it alone."""

KNOWN_PREFIXES = 1024
"""How many prefixes of mounted applications are remembered with their templates."""


class RouteTemplates:
    """Tells the resources of requests that one application has handled; each middleware has one."""

    def __init__(self, app: object) -> None:
        self._app = app
        self._known: dict[tuple[str, int], tuple[object, str]] = {}
        self._logged = False

    def resource(self, scope: Scope, path: str, root_path: str, status: object) -> str:
        """Return the resource of a request.

        ``scope`` is as the application left it, ``path`` and ``root_path`` are as they were before, and ``status`` is
        what the response began with.
        """
        try:
            route = scope.get("route")
            fastapi = scope.get("fastapi")
            if fastapi:
                context = fastapi.get("effective_route_context")  # a route of a router that was included
                if context is not None:
                    route = context.starlette_route or context
            if scope.get("root_path", "") == root_path:  # else there was a mount on the way
                template: str | None = getattr(route, "path_format", None)
                if template is None or "path_template" in scope:
                    template = self._without_mount(scope, path, root_path, template, status)
            else:
                template = self._matched(scope, path, root_path, route, status)
            return UNKNOWN if template is None else template_label(template)
        except Exception as fault:  # whatever a route that isn't of the usual kind may raise
            level = logging.DEBUG if self._logged else logging.WARNING
            self._logged = True
            with suppress(Exception):  # a broken log handler must not reach the application either
                logger.log(level, "the route of a request can't be told; it is counted as %s", UNKNOWN, exc_info=fault)
            return UNKNOWN

    def _without_mount(
        self, scope: Scope, path: str, root_path: str, template: str | None, status: object
    ) -> str | None:
        litestar: str | None = scope.get("path_template")
        if litestar is not None:
            if litestar:
                return litestar
            # A mount in Litestar, which takes its prefix off the path of the scope.
            whole, rest = path.removeprefix(root_path).rstrip("/"), scope["path"].rstrip("/")
            return whole.removesuffix(rest) + (template or "/{path}") if whole.endswith(rest) else None
        frontend: str | None = scope.get("fastapi", {}).get("frontend_path")
        if frontend is not None:  # FastAPI's static files for the browser
            return path.removesuffix(frontend).removeprefix(root_path).rstrip("/") + "/{path}"
        if "router" in scope and "endpoint" not in scope and status != TEMPORARY_REDIRECT:
            return None  # the router has seen this very scope, and has found nothing
        return self._matched(scope, path, root_path, None, status)

    def _matched(self, scope: Scope, path: str, root_path: str, route: object, status: object) -> str | None:
        """Return the template that is found by matching the routes again, or ``None`` where none matches."""
        key = (scope.get("root_path", ""), id(route))
        known = self._known.get(key)
        if known is not None and known[0] is route:
            return known[1]
        routes = _routes(self._app) or _routes(scope.get("app"))
        before = {**scope, "path": path, "root_path": root_path, "path_params": {}}
        inner = before.pop("path_template", None)
        for found in ("fastapi", "route", "endpoint"):
            before.pop(found, None)
        _, template = _match(routes, before, inner)
        if template is None and status == TEMPORARY_REDIRECT:
            other = path[:-1] if path.endswith("/") else f"{path}/"
            _, template = _match(routes, {**before, "path": other}, inner)
        if template is not None and hasattr(route, "endpoint") and len(key[0]) <= MAX_RESOURCE:
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
