import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_common import configure
from llm_common.integrations.asgi import MetricsMiddleware, Receive, Scope, Send
from llm_common.testing import HttpExchange, RecordedMetrics
from recording import FaultyBackend

App = Callable[[Scope, Receive, Send], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}


def drive(
    app: App, incoming: Iterable[dict[str, Any]] = (), method: str = "GET", path: str = "/x", **more: Any
) -> list[Any]:
    """Send one request through the middleware around ``app``; return what the application sent."""
    messages, sent = list(incoming), []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], **more}
    options = {key: scope.pop(key) for key in ("exclude",) if key in scope}
    asyncio.run(MetricsMiddleware(app, **options)(scope, receive, more.get("send", send)))
    return sent


def respond(*messages: Any) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def test_an_application_without_routes_counts_as_unknown(recorded_metrics: RecordedMetrics) -> None:
    assert drive(respond(START, END)) == [START, END]
    assert recorded_metrics.exchanges == [HttpExchange("GET", "200", "{unknown}", "app_api")]


def test_an_application_can_tell_its_template_in_the_scope(recorded_metrics: RecordedMetrics) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = "/things/{thing}/"
        await respond(START, END)(scope, receive, send)

    drive(app)
    recorded_metrics.assert_http(resource="things/{thing}")


def test_an_application_that_sends_nothing_counts_as_500(recorded_metrics: RecordedMetrics) -> None:
    assert drive(respond()) == []
    recorded_metrics.assert_http(status=500)


def test_an_application_that_sends_half_a_response_counts_as_500(recorded_metrics: RecordedMetrics) -> None:
    drive(respond(START, {"type": "http.response.body", "body": b"123", "more_body": True}))
    assert recorded_metrics.exchanges == [HttpExchange("GET", "500", "{unknown}", "app_api", 0, 3)]


def test_an_application_that_sends_two_responses_counts_its_first(recorded_metrics: RecordedMetrics) -> None:
    second = [{**START, "status": 404}, {"type": "http.response.body", "body": b"again"}]
    assert drive(respond(START, END, *second)) == [START, END, *second]
    assert recorded_metrics.exchanges == [HttpExchange("GET", "200", "{unknown}", "app_api", 0, 0)]


@pytest.mark.parametrize("status", ["teapot", None, 99, 1000, -1, 2.5, []])
def test_a_status_that_is_none_counts_as_an_error(recorded_metrics: RecordedMetrics, status: Any) -> None:
    drive(respond({"type": "http.response.start", "status": status}, {**END, "body": b"12"}))
    recorded_metrics.assert_http(status="error")


@pytest.mark.parametrize("body", [None, "text", 5, memoryview(b"12345")])
def test_a_body_that_is_none_is_left_to_the_server(recorded_metrics: RecordedMetrics, body: Any) -> None:
    sent = drive(respond(START, {"type": "http.response.body", "body": body}, {}))
    assert sent == [START, {"type": "http.response.body", "body": body}, {}]
    recorded_metrics.assert_http(status=200)


def test_messages_that_nobody_knows_pass_through(recorded_metrics: RecordedMetrics) -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}
    assert drive(respond(hint, START, END, trailers)) == [hint, START, END, trailers]
    recorded_metrics.assert_http(status=200)


def test_files_that_the_server_sends_count_by_their_size(recorded_metrics: RecordedMetrics, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    with path.open("rb") as file:
        part = {"type": "http.response.zerocopysend", "file": file}
        drive(respond(START, {"type": "http.response.pathsend", "path": str(path)}))
        drive(respond(START, {**part, "count": 10, "more_body": True}, {**part, "offset": 400}))
    drive(respond(START, {"type": "http.response.pathsend", "path": str(tmp_path / "none")}))
    drive(respond(START, {"type": "http.response.zerocopysend"}))
    assert [exchange.response_bytes for exchange in recorded_metrics.exchanges] == [1000, 610, 0, 0]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_body_where_none_is_sent_counts_nothing(recorded_metrics: RecordedMetrics, method: str, status: int) -> None:
    drive(respond({**START, "status": status}, {**END, "body": b"dropped"}), method=method)
    assert recorded_metrics.exchanges[0].response_bytes == 0


def test_bodies_of_requests_count_as_far_as_they_were_read(recorded_metrics: RecordedMetrics) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        await respond(START, END)(scope, receive, send)

    parts = [{"type": "http.request", "body": b"x" * size, "more_body": True} for size in (10, 20, 40)]
    drive(app, parts, method="POST", headers=[(b"content-length", b"-5")])
    assert recorded_metrics.exchanges[0].request_bytes == 30


def test_a_client_that_goes_away_during_the_upload_counts_as_499(recorded_metrics: RecordedMetrics) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ConnectionAbortedError("the client is gone")

    with pytest.raises(ConnectionAbortedError):
        drive(app, [{"type": "http.request", "body": b"123", "more_body": True}, {"type": "http.disconnect"}])
    assert recorded_metrics.exchanges == [HttpExchange("GET", "499", "{unknown}", "app_api", 3, 0)]


def test_what_else_a_server_may_say_passes_through(recorded_metrics: RecordedMetrics) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await respond(START, END)(scope, receive, send)

    drive(app, [{"type": "http.news"}])
    assert seen == [{"type": "http.news"}]
    recorded_metrics.assert_http(status=200)


def test_a_server_that_says_so_when_it_sends(recorded_metrics: RecordedMetrics) -> None:
    async def send(message: Any) -> None:
        raise BrokenPipeError

    async def app(scope: Scope, receive: Receive, own_send: Send) -> None:
        await respond(START)(scope, receive, own_send)

    async def swallowing(scope: Scope, receive: Receive, own_send: Send) -> None:
        with suppress(OSError):
            await app(scope, receive, own_send)

    with pytest.raises(BrokenPipeError):
        drive(app, send=send)
    drive(swallowing, send=send)
    recorded_metrics.assert_http(status=499, times=2)


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_a_request_that_is_cut_off_counts_as_499(recorded_metrics: RecordedMetrics, kind: type[BaseException]) -> None:
    error = kind()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    async def call() -> None:
        scope: Scope = {"type": "http", "method": "GET", "path": "/"}
        with pytest.raises(kind) as raised:
            await MetricsMiddleware(app)(scope, None, None)  # type: ignore[arg-type]
        assert raised.value is error

    asyncio.run(call())
    recorded_metrics.assert_http(status=499)


def test_an_exception_after_the_response_changes_nothing(recorded_metrics: RecordedMetrics) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(START, END)(scope, receive, send)
        raise ValueError("in the background")

    with pytest.raises(ValueError, match="in the background"):
        drive(app)
    assert [exchange.status for exchange in recorded_metrics.exchanges] == ["200"]


def test_routes_that_raise_are_told_once_and_count_as_unknown(
    recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def matches(self, scope: Scope) -> None:
            raise RuntimeError("no match can be told")

    class Application:
        routes = (Odd(),)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await respond(START, END)(scope, receive, send)

    middleware = MetricsMiddleware(Application())
    caplog.set_level(logging.DEBUG)

    async def send(message: Any) -> None: ...

    for _ in range(2):
        scope: Scope = {"type": "http", "method": "GET", "path": "/"}
        asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
    recorded_metrics.assert_http(resource="{unknown}", times=2)
    assert [record.levelname for record in caplog.records if "route" in record.getMessage()] == ["WARNING", "DEBUG"]


def test_what_is_excluded_can_be_chosen(recorded_metrics: RecordedMetrics) -> None:
    for exclude in ("/x", ["/a", "x/"], ["/?"], ("*",)):
        drive(respond(START, END), exclude=exclude)
    assert recorded_metrics.exchanges == []
    drive(respond(START, END), path="/metrics", exclude=())
    drive(respond(START, END), path="/metrics", root_path="/metrics")
    recorded_metrics.assert_http(times=2)
    drive(respond(START, END), path="/base/metrics/", root_path="/base")
    recorded_metrics.assert_http(times=2)


@pytest.mark.parametrize("exclude", [5, None, b"/x"])
def test_what_is_excluded_must_be_some(exclude: Any) -> None:
    with pytest.raises(TypeError, match=r"exclude is .*; accepted: a path such as '/metrics', or several"):
        MetricsMiddleware(respond(), exclude=exclude)


@pytest.mark.parametrize(("app_type", "kind"), [(5, TypeError), (None, TypeError), ("", ValueError)])
def test_an_app_type_that_names_nothing_is_refused(app_type: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"app_type .*; name what the requests are sent to"):
        MetricsMiddleware(respond(), app_type=app_type)


def test_what_is_excluded_must_be_paths() -> None:
    with pytest.raises(TypeError, match="exclude has 5; accepted: paths such as '/metrics'"):
        MetricsMiddleware(respond(), exclude=[5])  # type: ignore[list-item]


def test_ten_thousand_paths_and_methods_are_one_series(recorded_metrics: RecordedMetrics) -> None:
    for number in range(10_000):
        drive_quickly(number)
    assert {(one.method, one.resource) for one in recorded_metrics.exchanges} == {("_OTHER", "{unknown}")}


def drive_quickly(number: int) -> None:
    async def send(message: Any) -> None: ...

    scope: Scope = {"type": "http", "method": f"M{number}", "path": f"/random/{number}\ud800"}
    coroutine = middleware(scope, None, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        coroutine.__await__().__next__()  # nothing in it waits, so no loop is needed


middleware = MetricsMiddleware(respond({**START, "status": 404}, END))


def test_in_strict_mode_a_fault_raises_but_replaces_no_exception(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the application's own")

    configure(app="shop_bot", backends=[FaultyBackend("http")], strict=True)
    with pytest.raises(OSError, match="http is broken"):
        drive(respond(START, END))
    with pytest.raises(ValueError, match="the application's own"):
        drive(app)


@pytest.mark.parametrize("template", [b"/bytes", ["/list"], 5])
def test_a_template_that_is_no_text_counts_as_unknown(recorded_metrics: RecordedMetrics, template: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = template
        await respond(START, END)(scope, receive, send)

    drive(app)
    recorded_metrics.assert_http(resource="{unknown}", status=200)


def test_a_log_handler_that_is_broken_replaces_no_exception(recorded_metrics: RecordedMetrics) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the log is broken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_template"] = 5
        raise ValueError("the application's own")

    handler = Broken()
    logging.getLogger("llm_common").addHandler(handler)
    try:
        with pytest.raises(ValueError, match="the application's own"):
            drive(app)
    finally:
        logging.getLogger("llm_common").removeHandler(handler)
    recorded_metrics.assert_http(resource="{unknown}", status=500)
