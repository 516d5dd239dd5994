import gzip
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import django  # type: ignore[import-untyped]
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]
from django.http import Http404, HttpResponse, StreamingHttpResponse  # type: ignore[import-untyped]
from django.test.utils import override_settings  # type: ignore[import-untyped]
from django.urls import get_urlconf, include, path, re_path, set_urlconf  # type: ignore[import-untyped]
from django.views.decorators.http import require_GET, require_POST  # type: ignore[import-untyped]
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from llm_common.contract import HttpExchange
from llm_common.http_labels import UNKNOWN
from llm_common.integrations.django import metrics_view
from llm_common.integrations.wsgi import MetricsMiddleware
from llm_common.testing.conformance import http_server
from llm_common.testing.conformance.http_server import HandlerError, HttpServerContract, Stage, connection, labels, read
from llm_common.testing.conformance.recording import Recording, recording
from scraping import Scrape, parsed
from wsgi_serving import gunicorn_server, werkzeug_server

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEFAULT_CHARSET="utf-8",
        LOGGING_CONFIG=None,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF="not.used",
        SECRET_KEY="for tests",
        USE_TZ=True,
    )
    django.setup()


class Urls:
    """What Django takes for a module with routes."""

    def __init__(self, *urlpatterns: Any) -> None:
        self.urlpatterns = list(urlpatterns)


def application(urls: Urls) -> WSGIHandler:
    """Return a Django application with these routes, whatever other ones this process has."""

    class Handler(WSGIHandler):  # type: ignore[misc]
        def get_response(self, request: Any) -> Any:
            request.urlconf = urls
            return super().get_response(request)

    return Handler()


def contract_urls(stage: Stage) -> Urls:
    def item(request: Any, item_id: str) -> HttpResponse:
        return HttpResponse(f"item {item_id}")

    def stream(request: Any) -> StreamingHttpResponse:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            stage.wait()
            yield b"two"

        return StreamingHttpResponse(pieces())

    def slow(request: Any) -> HttpResponse:
        stage.wait()
        return HttpResponse("slow")

    def endless(request: Any) -> StreamingHttpResponse:
        return StreamingHttpResponse(http_server.PIECE for _ in range(http_server.MOST_PIECES))

    def fail(request: Any) -> HttpResponse:
        raise HandlerError

    def late(request: Any) -> StreamingHttpResponse:
        def pieces() -> Iterator[bytes]:
            yield b"one"
            raise HandlerError

        return StreamingHttpResponse(pieces())

    def compressed(request: Any) -> HttpResponse:
        return HttpResponse(http_server.COMPRESSED, headers={"Content-Encoding": "gzip"})

    inner = [path("sub/<name>", lambda request, name: HttpResponse(f"mounted {name}"))]
    return Urls(
        path("", lambda request: HttpResponse("home")),
        path("items/<item_id>", require_GET(item)),
        path("echo", require_POST(lambda request: HttpResponse(request.body))),
        path("ignore", require_POST(lambda request: HttpResponse(status=204))),
        path("stream", stream),
        path("slow", slow),
        path("endless", endless),
        path("fail", fail),
        path("late", late),
        path("teapot", lambda request: HttpResponse("teapot", status=418)),
        path("compressed", compressed),
        path("metrics", metrics_view),
        path("mounted/", include(inner)),
    )


class TestDjango(HttpServerContract):
    def serve(self, stage: Stage, *, tracked: bool) -> AbstractContextManager[tuple[str, int]]:
        app = application(contract_urls(stage))
        return werkzeug_server(with_lengths(MetricsMiddleware(app) if tracked else app))


def with_lengths(app: Any) -> Any:
    """Read chunked bodies first, as proxies do, since Django reads only those with a length."""

    def proxy(environ: Any, start_response: Any) -> Any:
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        return app(environ, start_response)

    return proxy


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as backend:
        yield backend


def fine(request: Any, *args: Any, **named: Any) -> HttpResponse:
    return HttpResponse("fine")


def missing(request: Any) -> HttpResponse:
    raise Http404


def shop() -> Urls:
    return Urls(
        path("items/<int:item_id>/", require_GET(fine)),
        path("missing", missing),
        path("товары/<slug:name>", fine),
        re_path(r"^articles/(?P<year>[0-9]{4})/", include([re_path(r"^([a-z]+)/$", fine), path("<uuid:key>", fine)])),
        re_path(r"^(?:page-(?P<page>\d+)/)?$", fine),
    )


@pytest.mark.parametrize(
    ("method", "where", "status", "resource"),
    [
        ("GET", "/items/7/?q=1", "200", "items/{item_id}"),
        ("DELETE", "/items/7/", "405", "items/{item_id}"),
        ("GET", "/items/7", "301", "items/{item_id}"),
        ("GET", "/missing", "404", "missing"),
        ("GET", "/nothing", "404", UNKNOWN),
        ("GET", "/товары/чай", "404", UNKNOWN),
        ("GET", "/товары/tea", "200", "товары/{name}"),
        ("GET", "/articles/2024/may/", "200", "articles/{year}/{arg}"),
        ("GET", "/articles/2024/0b1ca3b5-6b0d-4f1d-9c2e-1f3a5b7c9d1e", "200", "articles/{year}/{key}"),
        ("GET", "/page-3/", "200", "page-{page}"),
        ("GET", "/%FF%FE", "404", UNKNOWN),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
def test_a_request_counts_with_the_template_of_its_route(
    recorded: Recording, method: str, where: str, status: str, resource: str, prefix: str
) -> None:
    inner = application(shop())
    app: Any = DispatcherMiddleware(application(Urls()), {"/mounted": inner}) if prefix else inner
    Client(MetricsMiddleware(app)).open(prefix + where, method=method, buffered=True)
    expected = resource if resource == UNKNOWN else prefix[1:] + "/" * bool(prefix) + resource
    assert labels(recorded.one()) == (method, status, expected, "app_api")


def test_a_redirection_of_what_is_no_route_is_unknown(recorded: Recording) -> None:
    class Elsewhere(WSGIHandler):  # type: ignore[misc]
        def get_response(self, request: Any) -> Any:
            response = super().get_response(request)
            response.status_code = 302
            return response

    with settings_with(ROOT_URLCONF=Urls(path("known", fine))):
        Client(MetricsMiddleware(Elsewhere())).get("/nothing", buffered=True)
    assert labels(recorded.one()) == ("GET", "302", UNKNOWN, "app_api")


def settings_with(**changes: Any) -> Any:
    return override_settings(**changes)


def test_a_prefix_that_a_setting_gives_is_no_part_of_the_resource(recorded: Recording) -> None:
    with settings_with(FORCE_SCRIPT_NAME="/behind"):
        Client(MetricsMiddleware(application(shop()))).get("/items/7/", buffered=True)
    assert recorded.one().resource == "items/{item_id}"


def test_an_exception_that_passes_through_counts_with_its_route(recorded: Recording) -> None:
    def fail(request: Any, n: int) -> HttpResponse:
        raise HandlerError

    with settings_with(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(HandlerError):
        Client(MetricsMiddleware(application(Urls(path("fail/<int:n>", fail))))).get("/fail/1")
    assert labels(recorded.one()) == ("GET", "500", "fail/{n}", "app_api")


def test_an_application_of_another_kind_takes_no_route_of_django(recorded: Recording) -> None:
    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    with settings_with(ROOT_URLCONF=shop()):
        Client(MetricsMiddleware(application(shop()))).get("/items/7/", buffered=True)
        Client(MetricsMiddleware(other)).get("/items/7/", buffered=True)
    assert [one.resource for one in recorded.ended(2)] == ["items/{item_id}", UNKNOWN]


def test_a_thread_that_django_has_used_counts_other_applications_as_they_are(recorded: Recording) -> None:
    urls = Urls(path("items/<item_id>", lambda request, item_id: HttpResponse("item")))
    Client(MetricsMiddleware(application(urls))).get("/items/1", buffered=True)
    set_urlconf(urls)  # what Django leaves where a response is never closed

    def at_once(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"no item"]

    def lazily(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"no item"

    for app in (at_once, lazily):
        Client(MetricsMiddleware(app)).get("/items/1", buffered=True)
    assert [exchange.resource for exchange in recorded.ended(3)] == ["items/{item_id}", UNKNOWN, UNKNOWN]
    assert get_urlconf() is urls
    Client(MetricsMiddleware(application(urls))).get("/items/1", buffered=True)
    assert get_urlconf() is None
    assert recorded.ended(4)[3].resource == "items/{item_id}"


def test_a_form_is_counted_as_django_reads_it(recorded: Recording) -> None:
    app = application(Urls(path("form", lambda request: HttpResponse(request.POST["name"]))))
    answer = Client(MetricsMiddleware(app)).post("/form", data={"name": "value"}, buffered=True)
    assert recorded.one() == HttpExchange("POST", "200", "form", "app_api", len("name=value"), len(answer.data))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_view_serves_the_metrics(scrape: Scrape, method: str) -> None:
    client = Client(MetricsMiddleware(application(Urls(path("metrics", metrics_view), path("", fine)))))
    client.get("/", buffered=True)
    plain = client.open("/metrics", method=method)
    packed = client.open("/metrics", method=method, headers={"Accept-Encoding": "gzip"})
    chosen = client.open("/metrics?name%5B%5D=genapp_http_requests_total", method=method)
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert packed.headers["Content-Encoding"] == "gzip"
    if method == "GET":
        assert parsed(plain.text) == parsed(gzip.decompress(packed.data).decode()) == scrape()
        assert {name for name, _ in parsed(chosen.text)} == {"genapp_http_requests_total"}
    else:
        assert plain.data == packed.data == b""


SERVED = """
import io
import django
from django.conf import settings
from django.http import FileResponse, HttpResponse
from django.urls import path
from llm_common.integrations.django import metrics_view
from llm_common.integrations.wsgi import MetricsMiddleware

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for tests")
urlpatterns = [
    path("items/<int:item_id>/", lambda request, item_id: HttpResponse(f"item {item_id}")),
    path("file", lambda request: FileResponse(open(__file__, "rb"))),
    path("metrics", metrics_view),
]
from django.core.wsgi import get_wsgi_application

application = MetricsMiddleware(get_wsgi_application())
"""


@pytest.mark.e2e
def test_gunicorn_serves_a_project_and_its_metrics(tmp_path: Path) -> None:
    with gunicorn_server(SERVED, tmp_path) as address:
        for where, body in (("/items/7/", b"item 7"), ("/file", SERVED.encode())):
            with connection(address) as client:
                client.request("GET", where)
                assert read(client.getresponse()).body == body
        with connection(address) as client:
            client.request("GET", "/metrics")
            found = parsed(read(client.getresponse()).body.decode())
    sums = {
        (dict(key)["status"], dict(key)["resource"]): value
        for (name, key), value in found.items()
        if name == "genapp_http_request_size_bytes_sum" and dict(key)["direction"] == "out"
    }
    assert sums == {("200", "items/{item_id}"): 6, ("200", "file"): len(SERVED)}
