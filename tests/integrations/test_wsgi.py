import gc
import io
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wsgi import FileWrapper as WerkzeugFileWrapper

from llm_common.contract import HttpExchange
from llm_common.http_labels import UNKNOWN
from llm_common.integrations.wsgi import MetricsMiddleware, SizedBody
from llm_common.integrations.wsgi_routes import django_route
from llm_common.testing.conformance.http_server import labels
from llm_common.testing.conformance.recording import Recording, recording
from wsgi_serving import werkzeug_server


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as backend:
        yield backend


class Server:
    """Does what a server does, step by step, and keeps what it was given."""

    def __init__(self, app: Any, method: str = "GET", path: str = "/", body: bytes = b"", *, environ: Any = ()) -> None:
        self.app = app
        self.environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
        setup_testing_defaults(self.environ)
        self.environ.update(environ)
        self.started: list[tuple[Any, ...]] = []
        self.written: list[bytes] = []

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        self.started.append((status, headers, exc_info))
        return self.written.append

    def call(self) -> Any:
        return self.app(self.environ, self.start_response)

    def run(self, most: int | None = None) -> list[bytes]:
        """Take so many parts of the response, and close it."""
        result = self.call()
        parts: list[bytes] = []
        try:
            for part in result:
                parts.append(part)
                if len(parts) == most:
                    break
        finally:
            result.close()
        return parts


class Result:
    """A response that counts how often it is closed."""

    def __init__(self, *parts: Any) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> "Result":
        return self

    def __next__(self) -> Any:
        part = next(self.parts)
        if isinstance(part, BaseException):
            raise part
        return part

    def close(self) -> None:
        self.closed += 1


def answering(result: Any, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(headers))
        return result

    return app


def tracked(app: Any, **options: Any) -> MetricsMiddleware:
    return MetricsMiddleware(app, **options)


def status_and_bytes(recorded: Recording) -> tuple[str, int]:
    return recorded.one().status, recorded.one().response_bytes


def test_the_middleware_keeps_to_the_specification_on_both_sides(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(4)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [body]

    server = Server(
        validator(tracked(validator(app))),
        "POST",
        body=b"body",
        environ={"CONTENT_LENGTH": "4", "QUERY_STRING": "", "SCRIPT_NAME": ""},
    )
    assert server.run() == [b"body"]
    assert recorded.one() == HttpExchange("POST", "200", UNKNOWN, "app_api", 4, 4)


def test_a_request_is_recorded_when_the_last_part_was_taken(recorded: Recording) -> None:
    result = tracked(answering(Result(b"one", b"two")))({"REQUEST_METHOD": "GET"}, Server(None).start_response)
    parts = iter(result)
    assert [next(parts), next(parts)] == [b"one", b"two"]
    assert recorded.exchanges == ()
    assert next(parts, None) is None
    assert status_and_bytes(recorded) == ("200", 6)


def test_a_response_is_closed_once_and_counted_once(recorded: Recording) -> None:
    result = Result(b"one")
    assert Server(tracked(answering(result))).run() == [b"one"]
    assert result.closed == 1
    assert status_and_bytes(recorded) == ("200", 3)


def test_what_has_no_close_needs_none(recorded: Recording) -> None:
    assert Server(tracked(answering((b"one",)))).run() == [b"one"]
    assert status_and_bytes(recorded) == ("200", 3)


def test_a_generator_starts_when_the_server_takes_its_first_part(recorded: Recording) -> None:
    steps: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        steps.append("started")
        start_response("202 Accepted", [])
        yield b"one"

    server = Server(tracked(app))
    result = server.call()
    assert steps == []
    assert list(result) == [b"one"]
    assert status_and_bytes(recorded) == ("202", 3)


def test_a_body_that_is_asked_for_an_iterator_again_goes_on(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"one", b"two"]

    server = Server(tracked(app))
    body = iter(server.app(server.environ, server.start_response))
    assert [next(body), *body] == [b"one", b"two"]
    assert list(body) == []
    assert status_and_bytes(recorded) == ("200", 6)


def test_an_iterator_that_is_not_asked_for_an_iterator_works_as_before(recorded: Recording) -> None:
    result = Server(tracked(answering(Result(b"one")))).call()
    assert next(result) == b"one"
    assert next(result, None) is None
    assert status_and_bytes(recorded) == ("200", 3)


def test_a_response_in_one_part_still_tells_its_length_to_the_server(recorded: Recording) -> None:
    output = io.BytesIO()
    environ: dict[str, str] = {}
    setup_testing_defaults(environ)
    handler = SimpleHandler(io.BytesIO(), output, io.StringIO(), environ)
    handler.run(tracked(answering([b"body"])))
    assert b"Content-Length: 4" in output.getvalue()
    assert not hasattr(Server(tracked(answering(Result()))).call(), "__len__")
    assert isinstance(Server(tracked(answering([]))).call(), SizedBody)
    assert status_and_bytes(recorded) == ("200", 4)


class Unbegun:
    def __iter__(self) -> Iterator[bytes]:
        raise LookupError("no iterator")


@pytest.mark.parametrize("result", [Result(b"one", LookupError("broken")), Unbegun()])
def test_an_exception_in_the_response_counts_as_500_and_passes_through(recorded: Recording, result: Any) -> None:
    with pytest.raises(LookupError):
        Server(tracked(answering(result))).run()
    assert recorded.one().status == "500"
    assert getattr(result, "closed", 1) == 1


def test_an_exception_before_the_response_counts_as_500_and_passes_through(recorded: Recording) -> None:
    fault = LookupError("broken")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise fault

    with pytest.raises(LookupError) as raised:
        Server(tracked(app)).call()
    assert raised.value is fault
    assert status_and_bytes(recorded) == ("500", 0)


def test_an_application_that_starts_again_after_a_fault_counts_with_the_second_status(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise LookupError("broken")
        except LookupError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        return [b"sorry"]

    server = Server(tracked(app))
    assert server.run() == [b"sorry"]
    assert [started[0] for started in server.started] == ["200 OK", "503 Service Unavailable"]
    assert server.started[1][2][0] is LookupError
    assert status_and_bytes(recorded) == ("503", 5)


def test_what_is_written_counts_too(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        return [b"two"]

    server = Server(tracked(app))
    assert (server.run(), server.written) == ([b"two"], [b"one"])
    assert status_and_bytes(recorded) == ("200", 6)


def test_a_client_that_is_gone_when_the_application_writes_counts_as_499(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"one")
        raise AssertionError

    def broken(data: bytes) -> None:
        raise BrokenPipeError

    server = Server(tracked(app))
    with pytest.raises(BrokenPipeError):
        server.app(server.environ, lambda *_: broken)
    assert status_and_bytes(recorded) == ("499", 0)


@pytest.mark.parametrize(
    ("method", "status", "headers", "most", "expected"),
    [
        ("GET", "200 OK", [], 1, ("499", 3)),
        ("GET", "200 OK", [("content-length", "6")], 1, ("499", 3)),
        ("GET", "200 OK", [("Content-Length", "3")], 1, ("200", 3)),
        ("GET", "200 OK", [("Content-Length", "-5")], 1, ("499", 3)),
        ("GET", "200 OK", [("Content-Length", "many")], 1, ("499", 3)),
        ("GET", "200 OK", None, 1, ("499", 3)),
        ("HEAD", "200 OK", [], 1, ("200", 0)),
        ("GET", "204 No Content", [], 1, ("204", 0)),
        ("GET", "304 Not Modified", [], 1, ("304", 0)),
        ("GET", "103 Early Hints", [], 1, ("103", 0)),
        ("HEAD", "200 OK", [], None, ("200", 0)),
        ("GET", "nonsense", [], None, ("error", 6)),
        ("GET", 200, [], None, ("500", 6)),
    ],
)
def test_a_response_that_is_closed_counts_by_what_was_still_to_come(
    recorded: Recording, method: str, status: Any, headers: Any, most: int | None, expected: tuple[str, int]
) -> None:
    def app(environ: Any, start_response: Any) -> Result:
        start_response(status, headers)
        return Result(b"one", b"two")

    Server(tracked(app), method).run(most)
    assert status_and_bytes(recorded) == expected


@pytest.mark.parametrize(("fault", "status"), [(BrokenPipeError(), "499"), (AssertionError(), "500")])
def test_a_server_that_fails_with_the_last_part_is_noticed_when_it_closes(
    recorded: Recording, fault: Exception, status: str
) -> None:
    result = Server(tracked(answering([b"one"], headers=[("Content-Length", "3")]))).call()
    with suppress(type(fault)):
        try:
            for _ in result:
                raise fault
        finally:
            result.close()
    assert recorded.one().status == status


def test_an_exception_that_was_being_handled_before_is_none_of_the_server(recorded: Recording) -> None:
    try:
        raise OSError
    except OSError:
        Server(tracked(answering([b"one"], headers=[("Content-Length", "3")]))).run(1)
    assert recorded.one().status == "200"


def test_an_application_that_never_starts_a_response_counts_as_500(recorded: Recording) -> None:
    assert Server(tracked(lambda *_: [])).run() == []
    assert recorded.one().status == "500"


def test_a_response_that_is_closed_before_it_started_counts_as_500(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"

    Server(tracked(app)).call().close()
    assert recorded.one().status == "500"


def test_parts_that_are_no_bytes_are_left_to_the_server(recorded: Recording) -> None:
    assert Server(tracked(answering(["text", 7]))).run() == ["text", 7]
    assert status_and_bytes(recorded) == ("200", 0)


def readings(stream: Any) -> list[Any]:
    into = bytearray(2)
    return [
        stream.read(2),
        stream.readline(),
        stream.readlines(4),
        stream.readinto(into),
        next(stream),
        list(stream),
        stream.read(),
        stream.read1(1),
        bytes(into),
        stream.tell(),
    ]


def test_every_way_to_read_the_body_counts_and_gives_the_same(recorded: Recording) -> None:
    body = b"1234\nab\ncd\nefgh\nij\nkl\nm"
    given: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        given.extend(readings(environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    Server(tracked(app), "POST", body=body, environ={"CONTENT_LENGTH": "-7"}).run()
    assert given == readings(io.BytesIO(body))
    assert recorded.one().request_bytes == len(body)


def test_a_body_that_is_not_read_counts_nothing_whatever_its_length_says(recorded: Recording) -> None:
    Server(tracked(answering([])), "POST", body=b"body", environ={"CONTENT_LENGTH": "9999"}).run()
    assert recorded.one().request_bytes == 0


class GoneClient:
    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError


def test_a_client_that_goes_away_while_it_sends_counts_as_499(recorded: Recording) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        raise AssertionError

    with pytest.raises(ConnectionResetError):
        Server(tracked(app), "POST", environ={"wsgi.input": GoneClient()}).call()
    assert recorded.one().status == "499"


def file_answer() -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))

    return app


class FixedWrapper:
    """As a server's own type, whose instances take no attributes."""

    __slots__ = ("file",)

    def __init__(self, file: Any) -> None:
        self.file = file


class BareWrapper:
    def __init__(self, file: Any) -> None:
        self.file = file


def test_a_file_reaches_the_server_as_it_is_and_counts_when_it_is_closed(recorded: Recording) -> None:
    server = Server(tracked(file_answer()), environ={"wsgi.file_wrapper": FileWrapper})
    result = server.call()
    assert type(result) is FileWrapper
    assert recorded.exchanges == ()
    result.close()
    assert result.filelike.closed
    result.close()
    assert status_and_bytes(recorded) == ("200", 4)


def test_a_file_whose_wrapper_cannot_be_closed_counts_all_the_same(recorded: Recording) -> None:
    result = Server(tracked(file_answer()), environ={"wsgi.file_wrapper": BareWrapper}).call()
    result.close()
    assert status_and_bytes(recorded) == ("200", 4)


def test_a_file_whose_wrapper_cannot_be_watched_counts_at_once(recorded: Recording) -> None:
    result = Server(tracked(file_answer()), environ={"wsgi.file_wrapper": FixedWrapper}).call()
    assert type(result) is FixedWrapper
    assert status_and_bytes(recorded) == ("200", 4)


@pytest.mark.parametrize(("fault", "status"), [(BrokenPipeError(), "499"), (MemoryError(), "500")])
def test_a_file_that_could_not_be_sent(recorded: Recording, fault: Exception, status: str) -> None:
    result = Server(tracked(file_answer()), environ={"wsgi.file_wrapper": FileWrapper}).call()
    with suppress(type(fault)):
        try:
            raise fault
        finally:
            result.close()
    assert status_and_bytes(recorded) == (status, 0)


def test_a_file_wrapper_that_is_a_function_is_iterated(recorded: Recording) -> None:
    server = Server(tracked(file_answer()), environ={"wsgi.file_wrapper": lambda file: iter(file.read, b"")})
    assert server.run() == [b"file"]
    assert status_and_bytes(recorded) == ("200", 4)


def test_two_middlewares_count_a_request_once(recorded: Recording) -> None:
    Server(tracked(tracked(answering([b"one"])))).run()
    assert recorded.one().response_bytes == 3


def test_excluded_paths_pass_through_untouched(recorded: Recording) -> None:
    result = [b"one"]
    app = tracked(tracked(answering(result)), exclude=["/admin/*", "/товары"])
    assert Server(app, path="/admin/users").call() is result
    assert Server(app, path="/товары".encode().decode("latin-1")).call() is result
    assert recorded.exchanges == ()
    Server(app, path="/metrics").run()
    assert recorded.one().resource == UNKNOWN


@pytest.mark.parametrize("path", ["/\xff\xfe", "/привет", "", "/\x00"])
@pytest.mark.parametrize("method", ["", "BREW", "\xff" * 1000])
def test_odd_environs_are_one_series(recorded: Recording, path: str, method: str) -> None:
    server = Server(tracked(answering([b"one"]), app_type="admin_api"), method, path)
    del server.environ["wsgi.input"]
    assert server.run() == [b"one"]
    assert recorded.one() == HttpExchange("_OTHER", "200", UNKNOWN, "admin_api", 0, 3)


class OddRequest:
    @property
    def url_rule(self) -> str:
        raise LookupError("no rule")


def test_a_route_that_cannot_be_told_is_logged_once(recorded: Recording, caplog: pytest.LogCaptureFixture) -> None:
    app = tracked(answering([]))
    with caplog.at_level(logging.DEBUG, "llm_common"):
        for _ in range(2):
            Server(app, environ={"werkzeug.request": OddRequest()}).run()
    assert {one.resource for one in recorded.ended(2)} == {UNKNOWN}
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]


class Rule:
    rule = "/items/<int:item_id>"


class WerkzeugRequest:
    url_rule = Rule


def routed(environ: Any, start_response: Any) -> list[bytes]:
    environ["werkzeug.request"] = WerkzeugRequest
    start_response("200 OK", [])
    return []


@pytest.mark.parametrize(
    ("before", "inside", "path", "rest", "expected"),
    [
        ("", "/shop", "/shop/items/1", "/items/1", "shop/items/{item_id}"),
        ("/base", "/base/shop", "/shop/items/1", "/items/1", "shop/items/{item_id}"),
        ("", "/from_a_proxy", "/items/1", "/items/1", "items/{item_id}"),
        ("", "/items", "/items/1", "/items/1", "items/{item_id}"),
        ("/base", "/else", "/items/1", "/items/1", "items/{item_id}"),
        ("", "/товары", "/товары/items/1", "/items/1", "товары/items/{item_id}"),
    ],
)
def test_what_is_mounted_counts_with_its_prefix(
    recorded: Recording, before: str, inside: str, path: str, rest: str, expected: str
) -> None:
    def mount(environ: Any, start_response: Any) -> Any:
        environ["SCRIPT_NAME"] = inside.encode().decode("latin-1")
        environ["PATH_INFO"] = rest.encode().decode("latin-1")
        return routed(environ, start_response)

    Server(tracked(mount), path=path.encode().decode("latin-1"), environ={"SCRIPT_NAME": before}).run()
    assert recorded.one().resource == expected


def test_a_mount_of_werkzeug_counts_with_its_prefix(recorded: Recording) -> None:
    app = DispatcherMiddleware(answering([]), {"/shop": routed})
    Server(tracked(app), path="/shop/items/1").run()
    assert recorded.one().resource == "shop/items/{item_id}"


def test_a_real_server_sees_no_difference_in_a_file(recorded: Recording) -> None:
    app = answering(FileWrapper(io.BytesIO(b"x" * 100_000), 4096))
    with werkzeug_server(tracked(app)) as address:
        client = HTTPConnection(*address, timeout=20)
        client.request("GET", "/")
        assert len(client.getresponse().read()) == 100_000
        client.close()
    assert status_and_bytes(recorded) == ("200", 100_000)


@pytest.mark.parametrize(
    ("route", "template"),
    [
        ("items/<int:item_id>/", "items/<int:item_id>/"),
        (r"^articles/(?P<year>[0-9]{4})/$", "articles/{year}/"),
        (r"^articles/([0-9]{4})/(\d+)/$", "articles/{arg}/{arg}/"),
        (r"^comments/(?:page-(?P<number>\d+)/)?$", "comments/page-{number}/"),
        (r"^(?P<whole>a(?P<part>b(c))d)/end$", "{whole}/end"),
        (r"^(?i)files/\d+/[a-z)(]+\.html\Z", "files/{arg}/{arg}.html"),
        (r"^v1\.0/(?!admin)(?P<name>[^/()]+)/?$", "v1.0/{name}/"),
        (r"^any/.*$", "any/{arg}"),
        (r"^a{2,3}b?[\w-]\w+/(?#why)(?P<x>\))$", "ab{arg}/{x}"),
        (r"robots.txt$", "robots.txt"),
        (r"api/<int:v>/(?P<year>[0-9]{4})/$", "api/<int:v>/{year}/"),
        (r"^broken(((", "broken{arg}"),
    ],
)
def test_regular_expressions_of_django_become_templates(route: str, template: str) -> None:
    assert django_route(route) == template


def test_a_file_without_a_length_counts_by_what_is_left_of_it(recorded: Recording, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    for wrapper in (FileWrapper, WerkzeugFileWrapper):
        with path.open("rb") as file:
            file.seek(100)
            server = Server(tracked(answering(wrapper(file))), environ={"wsgi.file_wrapper": wrapper})
            result: Any = server.app(server.environ, server.start_response)
            assert isinstance(result, wrapper)
            result.close()
    assert [exchange.response_bytes for exchange in recorded.ended(2)] == [900, 900]


def test_a_request_leaves_nothing_to_the_garbage_collector(recorded: Recording) -> None:
    class Upload(io.BytesIO):
        pass

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"done"]

    gc.collect()
    gc.disable()
    try:
        upload = Upload(b"x" * 1000)
        watched = weakref.ref(upload)
        server = Server(tracked(app), environ={"wsgi.input": upload})
        server.run()
        del server, upload
        assert watched() is None
    finally:
        gc.enable()
    assert recorded.one().request_bytes == 1000


def test_a_request_without_method_and_path_is_counted(recorded: Recording) -> None:
    Server(tracked(answering([b"x"])), environ={"REQUEST_METHOD": None, "PATH_INFO": None}).run()
    assert labels(recorded.one())[0] == "_OTHER"
