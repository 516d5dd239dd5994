"""Floods of hostile input, drawn out of bytes: what tests feed with hypothesis, and ``make torture`` with atheris.

A flood takes one input after the other and fails where anything but a documented error comes out, or where the
application gets another result than without tracking. In between it shows its scrape to every parser there is.

``python tests/flooding.py`` feeds all of them, guided by the coverage of the package, and prints what came of it.
"""

import argparse
import gzip
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from wsgiref.util import setup_testing_defaults

if __name__ == "__main__":
    try:
        import atheris
    except ImportError:
        sys.exit("a flood needs atheris, which guides it; install it with: pip install -r requirements/dev.txt")
    if "--alone" in sys.argv:  # the process that runs a single flood
        with atheris.instrument_imports(include=["llm_common"]):
            import llm_common.doctor.run
            import llm_common.integrations.httpx
            import llm_common.integrations.wsgi
            import llm_common.prometheus  # noqa: F401

import flask
import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from llm_common import action_tracking, configure, hookimpl, http_tracking
from llm_common.action_names import SUFFIXES, with_suffix
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.dispatch import Configuration
from llm_common.doctor import endpoint
from llm_common.doctor.run import hushed, results
from llm_common.errors import ConfigurationError
from llm_common.exposition import render_metrics, respond
from llm_common.http_labels import MAX_RESOURCE, TELEGRAM, path_label, status_label, template_label
from llm_common.integrations import asgi, wsgi
from llm_common.integrations.httpx import TrackedTransport
from llm_common.metrics_server import start_metrics_server
from llm_common.settings import READERS, Pyproject, environment_variable, find_pyproject, resolve

One = TypeVar("One")

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

TOKEN = "8123456789:AAH-zyxwvutsrqponmlkjihgfedcba98765"
"""A secret that no label and no report may have."""

NASTY = (
    *(
        "",
        "menu_handler",
        " ",
        '"',
        "\\",
        "\n",
        "\r\n",
        "\x00",
        "\\n",
        '\\"',
        "{}",
        "{other}",
        "%s",
        "%(x)d",
        "%",
        "<>",
    ),
    *("<<>>", "# EOF\n", "# TYPE x counter\n", "\u202e", "\u2066", "\u2028", "\x85", "\ud800", "\udfff", "\U0001f600"),
    *("e\u0301", "\ufeff", "\uffff", "NaN", "+Inf", "1e999", "-1", "0", "1_0", "\u0661", "9" * 5000, "le", "a" * 300),
)
"""Texts that have spoiled something somewhere."""


class Scalar(float):
    """A number as numpy has them: comparing it gives no truth."""

    def __eq__(self, other: object) -> Any:
        return NotTrue()

    __hash__ = float.__hash__


class NotTrue:
    def __bool__(self) -> bool:
        raise ValueError("the truth of several is ambiguous")


class Unshowable:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __iter__(self) -> Any:
        raise RuntimeError("nothing to go through")


class WrongFloat:
    def __float__(self) -> Any:
        return "5"


class NoFloat:
    @property
    def __float__(self) -> Any:
        raise KeyError("not even looked for")


class Text(str):  # noqa: SLOT000
    """A text that shows otherwise than it is."""

    def __str__(self) -> str:
        return "\ud800"

    __repr__ = __str__


NUMBERS: Sequence[Any] = (
    *(0, 1, -1, True, 0.5, -0.0, 5e-324, 1.7e308, 2**53 + 1, 2**63, 10**400, -(10**400), float("nan"), float("inf")),
    *(
        float("-inf"),
        Decimal("1.5"),
        Decimal("sNaN"),
        Decimal("1e999999"),
        Fraction(1, 3),
        1j,
        Scalar(2.5),
        Scalar("nan"),
    ),
)
ODD: Sequence[Any] = (
    *(None, b"", b"\xff", bytearray(b"x"), object(), object, len, (), [], {}, [1, 2], ["a"], {"a": 1}, range(3)),
    *(
        Unshowable(),
        WrongFloat(),
        NoFloat(),
        Text("menu_handler"),
        Text("\ud800"),
        [Unshowable()],
        [10**400],
        NotTrue(),
    ),
)


class Draw:
    """Draws values out of bytes; when these are at their end, zeros and empty texts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """Draw a whole number up to ``most``, below 256."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1] % (most + 1)

    def pick(self, options: Sequence[One]) -> One:
        return options[self.number(len(options) - 1)]

    def some(self, draw: Callable[[], One], most: int = 3) -> list[One]:
        return [draw() for _ in range(self.number(most))]

    def raw(self, most: int = 40) -> bytes:
        begin, self._at = self._at + 1, self._at + 1 + self.number(most)
        return self._data[begin : self._at]

    def text(self) -> str:
        """Draw any text: quotes, controls, lone surrogates, and now and then a long one."""
        kind = self.number(8)
        if kind <= 2:
            return self.pick(NASTY)
        if kind == 3:
            return self.raw().decode("latin-1")
        if kind == 4:
            return self.raw().decode("utf-16-le" if self.number(1) else "utf-8", "ignore")
        if kind == 8:
            return "".join(chr(one * 256 + two) for one, two in zip(*[iter(self.raw())] * 2, strict=False))
        if kind == 5:
            most = 1_000_000 if self.raw(2) == b"\xff\xff" else 5_000
            piece = self.pick(NASTY)
            return (piece * min(self.number(255) * most // 5_000, most // (len(piece) or 1)))[:most]
        return self.raw().decode("utf-8", "replace") if kind == 6 else "".join(self.some(self.text))

    def amount(self) -> Any:
        return self.pick(NUMBERS) if self.number(1) else self.value()

    def value(self) -> Any:
        """Draw anything at all."""
        return (self.text, lambda: self.pick(NUMBERS), lambda: self.pick(ODD), lambda: self.raw())[self.number(3)]()


class Flood(ABC):
    """Something that takes hostile input, with a scrape of its own."""

    inputs: ClassVar[int]
    """How many it gets of a million."""
    counted: ClassVar[str] = "genapp_action_count_total"
    """The series whose sum is :attr:`ended`."""

    def __init__(self) -> None:
        self.taken = 0
        self.scrapes = 0
        self.linted = 0
        """How many scrapes promtool has read."""
        self._beside = Configuration()
        self.begin()

    def begin(self) -> None:
        """Begin with an empty registry, so that pages stay readable."""
        self.registry = CollectorRegistry()
        self.ended = 0
        """How many measurements the scrape must show."""
        with self._beside:
            self.configure(PrometheusBackend(self.registry))

    def configure(self, backend: PrometheusBackend) -> None:
        configure(app="shop", env="dev", backends=[backend], max_series=50)

    def take(self, data: bytes) -> None:
        """Take one input."""
        self.taken += 1
        with self._beside:
            self.feed(Draw(data))

    @abstractmethod
    def feed(self, draw: Draw) -> None:
        """Do with one input what an application, or whoever talks to it, might do."""

    def check(self, lint: bool = False) -> None:
        """Let all parsers read the scrape, Prometheus's own if ``lint``, and begin anew."""
        page, _ = render_metrics(registry=self.registry)
        families = text_string_to_metric_families(page.decode())
        counted = sum(one.value for family in families for one in family.samples if one.name == self.counted)
        assert counted == self.ended, (counted, self.ended)
        again, _ = render_metrics(OPENMETRICS, registry=self.registry)
        list(openmetrics_families(again.decode()))  # type: ignore[no-untyped-call]
        self.scrapes += 2
        if lint:
            check_with_promtool(page)
            self.linted += 1
        self.begin()

    def close(self) -> None:
        self._beside.close()


def check_with_promtool(page: bytes) -> None:
    """Let Prometheus's own parser read a page. Its advice on names, with status 3, is about names that stay."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool isn't installed; it comes with the Debian package prometheus"
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=120)
    assert done.returncode in {0, 3}, done.stderr.decode()
    assert b"error while linting" not in done.stderr, done.stderr.decode()


class Leaving(BaseException):
    """Leaves a block without being an error."""


class Failure(Exception):
    """What an application raises."""


class Actions(Flood):
    """Names, sizes, tokens, ends of blocks, and exemplars."""

    inputs = 260_000

    def configure(self, backend: PrometheusBackend) -> None:
        self.labels: Any = None
        flood = self

        class Plugin:
            @hookimpl
            def llm_common_exemplar_source(self) -> Any:
                return lambda: flood.labels

        configure(
            app="sh\\op",
            env='"',
            backends=[backend],
            plugins=[Plugin()],
            max_series=50,
            extra_metrics=["llm_tokens", "first_item"],
        )

    def feed(self, draw: Draw) -> None:
        name = draw.text() if draw.number(7) else draw.value()
        # The parser of OpenMetrics that is at hand takes no quote in exemplars, though the format has them escaped.
        trace = {"trace_id": draw.text().replace('"', "'")}
        self.labels = draw.pick([None, trace, trace, {draw.text(): 5}, {"a": draw.pick(ODD)}, draw.pick(ODD)])
        try:
            tracker = action_tracking(name)
        except (TypeError, ValueError):
            assert not isinstance(name, str) or not name
            return
        failure = draw.pick([None, Failure(), Leaving(), GeneratorExit()])
        try:
            with tracker:
                for act in draw.some(lambda: draw.number(3)):
                    if act == 0:
                        tracker.size(draw.amount())
                    elif act == 1:
                        tracker.tokens(draw.value(), input=draw.amount(), output=draw.amount())
                    elif act == 2:
                        tracker.to_fail(draw.value())
                    else:
                        tracker.first_item()
                if failure:
                    raise failure
        except BaseException as caught:
            assert caught is failure  # noqa: PT017
        tracker.size(draw.amount())  # too late
        assert repr(tracker)
        self.ended += 1
        assert with_suffix(draw.text(), draw.pick(SUFFIXES)).isascii()


class Exchanges(Flood):
    """What applications tell of exchanges that no integration sees, and the policy for labels."""

    inputs = 240_000
    counted = "genapp_http_requests_total"

    def feed(self, draw: Draw) -> None:
        pieces = draw.some(
            lambda: draw.pick(["/", f"bot{TOKEN}", TOKEN, "file", "eapi", "%62ot", "?", ";", "https://h", draw.text()]),
            6,
        )
        path = "".join(pieces)
        label = path_label(path, TELEGRAM)
        assert len(label) <= MAX_RESOURCE
        assert TOKEN not in label
        assert len(path_label(path)) <= MAX_RESOURCE
        assert f"bot{TOKEN}" not in path_label(path)
        template_label(path)
        assert len(status_label(draw.value())) <= 9
        arguments = (
            draw.text() if draw.number(7) else draw.value(),
            path if draw.number(7) else draw.value(),
            draw.pick(["GET", "post", draw.text()]) if draw.number(7) else draw.value(),
            draw.amount(),
            draw.pick([200, "404", None, draw.value()]),
            draw.amount(),
            draw.amount(),
            draw.number(1) == 1,
        )
        try:
            http_tracking(*arguments)
        except (TypeError, ValueError):
            assert not all(isinstance(one, str) for one in arguments[:3]) or not arguments[0]
            return
        measured = (arguments[3], arguments[5], arguments[6])
        self.ended += all(isinstance(one, int | float) and 0 <= one < 2.0**63 for one in measured)


class Requests(Flood):
    """Requests to applications behind ASGI and WSGI, which answer as they do without tracking."""

    inputs = 100_000
    counted = "genapp_http_requests_total"

    def __init__(self) -> None:
        async def echo(request: Request) -> Response:
            return Response(await request.body(), media_type="text/plain")

        async def fail(request: Request) -> Response:
            raise Failure(request.url.path)

        routes = [
            Route("/items/{item_id:int}", echo, methods=["GET", "POST"]),
            Route("/fail", fail),
            Mount("/sub/{tenant}", routes=[Route("/{name}/leaf", echo)]),
        ]
        self.asgi = Starlette(routes=routes)
        self.tracked_asgi = asgi.MetricsMiddleware(self.asgi, exclude=())
        app = flask.Flask("shop")
        app.config["PROPAGATE_EXCEPTIONS"] = True

        @app.route("/items/<int:item_id>", methods=["GET", "POST"])
        def item(item_id: int) -> bytes:
            return flask.request.get_data()

        @app.route("/fail")
        def failing() -> bytes:
            raise Failure

        self.wsgi = app.wsgi_app
        self.tracked_wsgi = wsgi.MetricsMiddleware(app.wsgi_app, exclude=())
        super().__init__()

    def feed(self, draw: Draw) -> None:
        method = draw.pick(["GET", "POST", "HEAD", "get", draw.text()])
        path = draw.pick(["/items/", "/fail", "/sub/", "", "//", "*"]) + draw.pick(
            ["7", "x/leaf", "x/y/leaf", draw.text()]
        )
        headers = [(draw.pick([b"content-length", b"host", draw.raw()]), draw.raw()) for _ in range(draw.number(3))]
        body = draw.raw()
        if draw.number(1):
            scope: dict[str, Any] = {
                "type": "http",
                "http_version": "1.1",
                "scheme": "http",
                "method": method,
                "path": path,
            }
            scope |= {"raw_path": b"", "query_string": draw.raw(), "headers": headers, "server": ("h", 80)}
            scope["root_path"] = draw.pick(["", "/sub", draw.text()])
            incoming: list[dict[str, Any]] = draw.some(
                lambda: draw.pick(
                    [
                        {"type": "http.request", "body": body, "more_body": True},
                        {"type": "http.disconnect"},
                        {"type": "x"},
                    ]
                )
            )
            self.same(lambda app: asked(app, dict(scope), incoming), self.asgi, self.tracked_asgi)
        else:
            environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": draw.text()}
            environ["CONTENT_LENGTH"] = draw.pick(["0", str(len(body)), draw.text()])
            environ["SCRIPT_NAME"] = draw.pick(["", draw.text()])
            environ |= {f"HTTP_{name.decode('latin-1').upper()}": value.decode("latin-1") for name, value in headers}
            setup_testing_defaults(environ)
            self.same(lambda app: called(app, environ | {"wsgi.input": io.BytesIO(body)}), self.wsgi, self.tracked_wsgi)
        self.ended += 1

    def same(self, ask: Callable[[Any], Any], bare: Any, tracked: Any) -> None:
        with_it, without = outcome(ask, tracked), outcome(ask, bare)
        assert with_it == without, (with_it, without)


def outcome(ask: Callable[[Any], Any], app: Any) -> Any:
    """Return what came of a request: an answer, or an exception by its kind and text."""
    try:
        return ask(app)
    except Exception as fault:
        return type(fault), str(fault)


def asked(app: Any, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[Any]:
    """Return what an ASGI application sends. Nothing in it waits, so that no loop is needed."""
    pending, sent = list(incoming), []

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    with suppress(StopIteration, ClientDisconnect):
        app(scope, receive, send).send(None)
    return sent


def called(app: Any, environ: dict[str, Any]) -> Any:
    """Return what a WSGI application answers."""
    started: list[Any] = []
    result = app(environ, lambda *given: started.append(given[:2]))
    try:
        return started, b"".join(result)
    finally:
        result.close()


class Clients(Flood):
    """Requests that the application sends, and answers of hostile servers."""

    inputs = 60_000
    counted = "genapp_http_requests_total"

    def begin(self) -> None:
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200)
        mock = httpx.MockTransport(lambda request: self.answer())
        self.bare = httpx.Client(transport=mock, trust_env=False)
        self.tracked = httpx.Client(transport=TrackedTransport(mock, app_type="llm"), trust_env=False)
        super().begin()

    def feed(self, draw: Draw) -> None:
        method = draw.pick(["GET", "POST", draw.text()])
        url = draw.pick(["http://h/", "https://user:pass@h:1/bot/", ""]) + draw.text()
        headers = [(draw.raw(), draw.raw())] if draw.number(1) else []
        status, answered, body = 100 + draw.number(255) * 2, [(draw.raw(8), draw.raw(8))], draw.raw()
        fault = draw.pick([None, None, Failure(), httpx.ReadTimeout("late"), KeyError()])
        before = 0

        def answer() -> httpx.Response:
            nonlocal before
            before += 1
            if fault:
                raise fault
            return httpx.Response(status, headers=answered, content=body)

        self.answer = answer

        def ask(client: httpx.Client) -> Any:
            response = client.request(method, url, headers=headers, content=body)
            return response.status_code, response.headers.raw, response.content

        without = outcome(ask, self.bare)
        sent, before = before, 0
        assert outcome(ask, self.tracked) == without
        assert before == sent
        self.ended += sent


class Configured(Flood):
    """Settings from arguments, the environment and pyproject.toml, the older package's names included."""

    inputs = 200_000

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.pyproject = Path(self._folder.name, "pyproject.toml")
        super().__init__()

    def close(self) -> None:
        self._folder.cleanup()
        super().close()

    def feed(self, draw: Draw) -> None:
        names = draw.some(lambda: draw.pick([*READERS, "app", "env"]), 4)
        texts = ["1,2,+Inf", "0.1, 1e3", "all", "llm_tokens,x", "yes", "OFF", "7", "noop", "a,A ,b"]
        given: dict[str, Any] = {}
        environ: dict[str, str] = {"OTEL_SERVICE_NAME": draw.text()}
        table: dict[str, Any] = {}
        for name in names:
            where = draw.number(2)
            text = draw.pick([*texts, draw.text()])
            if where == 0:
                given[name] = draw.pick([text, draw.value(), draw.some(draw.value)])
            elif where == 1:
                environ[environment_variable(name)] = text
            else:
                table[draw.pick([name, name, name, draw.text()[:50]])] = draw.pick([text, draw.value()])
        try:
            settings = resolve(given, environ, Pyproject(Path("pyproject.toml"), table) if table else None, "shop")
        except ConfigurationError as problem:
            assert 0 < len(str(problem)) < 2000  # noqa: PT017
        else:
            if draw.number(31) != 31:
                return
            configure(app=settings.app, env=settings.env, backends=[PrometheusBackend(self.registry)], max_series=50)
            with action_tracking("menu_handler"):
                self.ended += 1
        if draw.number(15) == 15:
            self.pyproject.write_bytes(b"[tool.llm_common]\n" + draw.raw(200))
            with suppress(ConfigurationError):
                find_pyproject(self.pyproject.parent)


class Scrapes(Flood):
    """What a scraper asks for: Accept, Accept-Encoding, queries, methods."""

    inputs = 90_000

    def begin(self) -> None:
        super().begin()
        self._valid: set[bytes] = set()
        with self._beside, action_tracking('menu"\\\n_handler'):
            self.ended += 1

    def feed(self, draw: Draw) -> None:
        words = [
            "application/openmetrics-text",
            "text/plain",
            "version=",
            "1.0.0",
            "0.0.4",
            "1",
            "escaping=",
            "allow-utf-8",
            "q=",
            "0.5",
        ]
        words += [",", ";", "=", "gzip", "*", "nan", "\r\n ", "\x1c", " ", "underscores", "dots", "values"]

        def header() -> str:
            return "".join(draw.some(lambda: draw.pick(words) if draw.number(7) else draw.text(), 12))

        headers = {"accept": header(), "accept-encoding": header()}
        query = "".join(draw.some(lambda: draw.pick(["name[]=", "genapp_action_count_total", "&", draw.text()]), 5))
        answer = respond(draw.pick(["GET", "GET", "GET", "HEAD", draw.text()]), query, headers, self.registry)
        assert answer.status in {200, 405}
        for name, value in answer.headers:
            assert name.isascii()
            assert value.isascii(), value
            assert value.isprintable(), value
        if answer.status == 200 and answer.body:
            told = dict(answer.headers)
            body = gzip.decompress(answer.body) if told.get("Content-Encoding") else answer.body
            if body not in self._valid:
                openmetrics = "openmetrics" in told["Content-Type"]
                parse: Any = openmetrics_families if openmetrics else text_string_to_metric_families
                list(parse(body.decode()))
                self._valid.add(body)
                self.scrapes += 1


class Servers(Flood):
    """Anything at all, sent to a metrics server."""

    inputs = 20_000

    def __init__(self) -> None:
        super().__init__()
        with self._beside:
            self._server = start_metrics_server(token="s3cret-token")
        with self._beside, action_tracking("menu_handler"):
            self.ended += 1

    def begin(self) -> None:
        if not hasattr(self, "registry"):
            super().begin()

    def feed(self, draw: Draw) -> None:
        words = [
            b"GET ",
            b"POST ",
            b"/metrics",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b" HTTP/9.9\r\n",
            b"\r\n",
            b"Host: h\r\n",
        ]
        words += [
            b"Authorization: Bearer s3cret-token\r\n",
            b"Authorization: ",
            b"Expect: 100-continue\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
        words += [
            b"Content-Length: 99999999\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: keep-alive\r\n",
            b"A: " + b"b" * 70_000 + b"\r\n",
            b"A: b\r\n" * 150,
        ]
        sent = b"".join(draw.some(lambda: draw.pick(words) if draw.number(7) else draw.raw(), 8)) + b"\r\n\r\n"
        received = b""
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=20) as client, suppress(OSError):
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                received += part
        assert b"s3cret" not in received or b"s3cret" in sent
        assert b"menu_handler" not in received or b"Bearer s3cret-token" in sent
        assert b"Traceback" not in received

    def close(self) -> None:
        self._server.close()
        super().close()


class Pages(Flood):
    """Pages of hostile servers, as ``llm-common doctor`` looks at them."""

    inputs = 40_000

    def feed(self, draw: Draw) -> None:
        words = [
            "genapp_action_count_total",
            "genapp_http_requests_total",
            "genapp_action_duration_sec_bucket",
            "process_start_time_seconds",
        ]
        words += [
            "{",
            "}",
            '"',
            "=",
            ",",
            " ",
            "\n",
            "1",
            "NaN",
            "+Inf",
            "# TYPE ",
            " counter\n",
            " histogram\n",
            "# HELP ",
            "# EOF\n",
            "env=",
            "app=",
        ]
        words += [
            'name="menu_handler"',
            'status="ok"',
            'env="prod"',
            'app="shop"',
            'le="1"',
            TOKEN,
            f"http://u:{TOKEN}@h/?k={TOKEN}",
        ]
        texts = ["".join(draw.some(lambda: draw.pick(words) if draw.number(7) else draw.text(), 40)) for _ in range(2)]
        kind = draw.pick(["", "text/plain", OPENMETRICS, draw.text()])
        pages = [endpoint.Scrape(text, kind, draw.pick(["", draw.text()]), 0.1, 1e9) for text in texts]
        found = list(
            results(
                "page",
                endpoint.Endpoint([[one] for one in pages], 0.1),
                endpoint.LOOKS,
                {*endpoint.LOOKS},
                {"TOKEN": TOKEN},
            )
        )
        assert TOKEN not in "".join(one.message + one.fix for one in found)
        assert TOKEN not in hushed(texts[0], {"API_KEY": TOKEN})


FLOODS: dict[str, type[Flood]] = {
    one.__name__.lower(): one for one in (Actions, Exchanges, Requests, Clients, Configured, Scrapes, Servers, Pages)
}

CHECK_EVERY, LINT_EVERY = 500, 20
"""After how many inputs the scrape is checked; and after how many such checks promtool reads it too."""


def quiet() -> None:
    """Let what is logged be written, but nowhere."""

    class Written(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert self.format(record) is not None

        def handleError(self, record: logging.LogRecord) -> None:
            raise AssertionError("a message can't be written")

    logger = logging.getLogger("llm_common")
    logger.handlers[:] = [Written()]
    logger.propagate = False


def fuzz(name: str, inputs: int, seed: int, folder: str) -> None:
    """Feed one flood, guided by coverage; print what came of it as JSON. It ends the process."""
    quiet()
    flood, began = FLOODS[name](), time.monotonic()

    def take(data: bytes) -> None:
        flood.take(data)
        if flood.taken % CHECK_EVERY == 0 or flood.taken == inputs:
            flood.check(lint=flood.taken % (CHECK_EVERY * LINT_EVERY) == 0 or flood.taken == inputs)
        if flood.taken == inputs:
            told = {"inputs": flood.taken, "scrapes": flood.scrapes, "promtool": flood.linted}
            print(json.dumps({"flood": name, **told, "seconds": time.monotonic() - began}), flush=True)
            flood.close()
            os._exit(0)

    options = [f"-runs={inputs}", f"-seed={seed}", "-max_len=400", "-timeout=60", "-rss_limit_mb=4096", "-verbosity=0"]
    atheris.Setup([name, *options, "-detect_leaks=0", f"-artifact_prefix={folder}/{name}-"], take)
    atheris.Fuzz()


def main() -> int:
    """Feed the floods that were named, two at a time. Returns 1 where one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floods", nargs="*", choices=[[], *FLOODS], default=[], metavar="FLOOD", help=", ".join(FLOODS))
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many altogether (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31, help="to repeat a run")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="flood-")
    if options.alone:
        fuzz(options.alone, options.inputs, options.seed, os.environ["FLOOD_FOLDER"])
    chosen = options.floods or list(FLOODS)
    whole = sum(FLOODS[name].inputs for name in chosen)
    began = time.monotonic()

    def run(name: str) -> tuple[str, "subprocess.CompletedProcess[str]"]:
        inputs = -(-options.inputs * FLOODS[name].inputs // whole)
        command = [sys.executable, __file__, "--alone", name, f"--inputs={inputs}", f"--seed={options.seed}"]
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LLM_COMMON_", "OTEL_", "PROMETHEUS_"))
        }
        return name, subprocess.run(command, env={**environ, "FLOOD_FOLDER": folder}, capture_output=True, text=True)

    inputs = crashes = scrapes = linted = 0
    with ThreadPoolExecutor(2) as pool:
        for name, done in pool.map(run, sorted(chosen, key=lambda one: -FLOODS[one].inputs)):
            if done.returncode:
                crashes += 1
                told = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO: "))
                print(f"{name}: failed; the input is in {folder}\n{told}", flush=True)
                continue
            told = json.loads(done.stdout.splitlines()[-1])
            inputs, scrapes, linted = inputs + told["inputs"], scrapes + told["scrapes"], linted + told["promtool"]
            print(
                f"flood of {name:<10} {told['inputs']:>9,} inputs, crashes 0, scrapes checked {told['scrapes']:>6,} "
                f"({told['promtool']} by promtool too), {told['seconds']:.0f} s",
                flush=True,
            )
    print(
        f"floods, seed {options.seed}: {inputs:,} inputs, crashes {crashes}, scrapes checked {scrapes:,} "
        f"({linted} by promtool too), {time.monotonic() - began:.0f} s"
    )
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
