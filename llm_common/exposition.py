"""Serving the scrape: one rendering behind an ASGI app and a WSGI app.

Behind it is the Prometheus backend, with everything else in its registry as prometheus_client would show it. Without
one, a backend is shown that has a method ``collect()``, as prometheus_client's collectors do.
"""

import asyncio
import gzip
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import parse_qs

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from llm_common.backends.folding import FoldingCollector
from llm_common.backends.prometheus import MULTIPROC_DIR, PrometheusBackend, multiprocess
from llm_common.backends.rendering import Format, render
from llm_common.bound import stops_program
from llm_common.dispatch import active, backends_to_show

logger = logging.getLogger("llm_common")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the Prometheus text format, the default."""

TEMPLATED: Mapping[Format, str] = MappingProxyType(
    {"text": "text/plain; version=", "openmetrics": "application/openmetrics-text; version=1.0.0"}
)
"""The formats that are written from templates. In any other, prometheus_client writes everything."""


def metrics_registry() -> "CollectorRegistry | Joined":
    """Return what a scrape shows: the registry of the Prometheus backend in force, or the global one without it.

    The global one comes with the families of the first backend that has a method ``collect()``. With several processes
    it is a fresh registry that sums over the files of all.
    """
    if multiprocess():
        registry = CollectorRegistry()
        FoldingCollector(registry, os.environ.get(MULTIPROC_DIR, ""))
        return registry
    backend = shown_backend()
    if isinstance(backend, PrometheusBackend):
        return backend.registry
    return REGISTRY if backend is None else Joined(cast("Collector", backend))


def shown_backend() -> object | None:
    """Return the backend that a scrape shows, if there is one that can be shown."""
    backends = backends_to_show()
    ours = (one for one in backends if isinstance(one, PrometheusBackend))
    others = (one for one in backends if callable(getattr(one, "collect", None)))
    return next(ours, None) or next(others, None)


class Joined:
    """The global registry, with the families of a backend that has none of its own."""

    def __init__(self, backend: Collector) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        """Yield the families; those that both have are the backend's."""
        try:
            families = list(self._backend.collect())
            names = {family.name for family in families}
        except BaseException as fault:
            if stops_program(fault):
                raise
            active().rendering_failed(self._backend)
            log_rendering(fault, "a backend can't show its metrics; the scrape has the global registry's alone")
            families, names = [], set()
        yield from (family for family in REGISTRY.collect() if family.name not in names)
        yield from families


def render_metrics(
    accept: str = "", *, registry: CollectorRegistry | None = None, names: Iterable[str] = ()
) -> tuple[bytes, str]:
    """Return the scrape and its content type.

    ``accept`` is the request's ``Accept`` header: the Prometheus text format by default, OpenMetrics where it is asked
    for. ``registry`` defaults to that of the backend in force; ``names`` restricts the scrape to these series.
    """
    source: Any = metrics_registry() if registry is None else registry
    if names:
        source = Selection(source, names)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        encode, content_type = generate_latest, TEXT
    for kind, prefix in TEMPLATED.items():
        if content_type.startswith(prefix):
            return render(source, encode, kind), content_type
    return encode(source), content_type


class Selection:
    """The series of a registry that have one of some names; also where the registry can't tell names beforehand."""

    def __init__(self, registry: CollectorRegistry, names: Iterable[str]) -> None:
        self._registry = registry
        self._names = frozenset(names)

    def collect(self) -> Iterator[Metric]:
        """Yield the families that have such series, with nothing else in them."""
        for family in self._registry.collect():
            chosen = Metric(family.name, family.documentation, family.type, family.unit)
            chosen.samples = [sample for sample in family.samples if sample.name in self._names]
            if chosen.samples:
                yield chosen


@dataclass(frozen=True, slots=True)
class Response:
    """What both kinds of application answer."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


_logged: set[type[BaseException]] = set()
"""The kinds of fault that were logged as a warning; scrapes come every few seconds, and so would their tracebacks."""


def log_rendering(fault: BaseException, text: str) -> None:
    """Log why a scrape is not what it should be: a warning with traceback once, then at debug level."""
    level = logging.DEBUG if type(fault) in _logged else logging.WARNING
    _logged.add(type(fault))
    logger.log(level, "%s", text, exc_info=fault)


def respond(method: str, query: str, headers: Mapping[str, str], registry: CollectorRegistry | None) -> Response:
    """Answer a request for the metrics. ``headers`` has lower-case names."""
    if method not in {"GET", "HEAD"}:
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD\n", ("Allow", "GET, HEAD"))
    try:
        names = parse_qs(query).get("name[]", ())
        body, content_type = render_metrics(headers.get("accept", ""), registry=registry, names=names)
    except Exception as fault:
        log_rendering(fault, "the metrics can't be rendered; the scrape is answered with status 500")
        with suppress(Exception):  # of a configuration that is wrong
            if registry is None:
                active().rendering_failed(shown_backend())
        return plain(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics can't be rendered; the log says why\n")
    extra = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
    if gzip_accepted(headers.get("accept-encoding", "")):
        body = gzip.compress(body, compresslevel=6)
        extra.append(("Content-Encoding", "gzip"))
    extra.append(("Content-Length", str(len(body))))
    return Response(HTTPStatus.OK, tuple(extra), b"" if method == "HEAD" else body)


def plain(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """Return a short answer in words."""
    body = text.encode()
    always = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return Response(status, (*always, *headers), body)


def gzip_accepted(accept_encoding: str) -> bool:
    """Return whether an ``Accept-Encoding`` header (RFC 9110, section 12.5.3) allows gzip."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weights[coding] = float(weight)
        except ValueError:
            weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def metrics_wsgi_app(registry: CollectorRegistry | None = None) -> WSGIApp:
    """Return a WSGI application that serves the metrics, to be mounted anywhere (PEP 3333)."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            "accept": environ.get("HTTP_ACCEPT", ""),
            "accept-encoding": environ.get("HTTP_ACCEPT_ENCODING", ""),
        }
        answer = respond(environ["REQUEST_METHOD"], environ.get("QUERY_STRING", ""), headers, registry)
        start_response(f"{answer.status.value} {answer.status.phrase}", list(answer.headers))
        return [answer.body]

    return app


def metrics_asgi_app(registry: CollectorRegistry | None = None) -> ASGIApp:
    """Return an ASGI application that serves the metrics, to be mounted anywhere; it renders in a thread.

    The event loop goes on while a scrape is rendered. Needs a server that runs asyncio.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            headers[key] = f"{headers[key]},{text}" if key in headers else text
        query = scope.get("query_string", b"").decode("latin-1")
        answer = await asyncio.to_thread(respond, scope["method"], query, headers, registry)
        start = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status.value, "headers": start})
        await send({"type": "http.response.body", "body": answer.body})

    return app
