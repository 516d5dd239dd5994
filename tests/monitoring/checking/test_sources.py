"""Files, folders and servers that are asked, some of which mean no good."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from prometheus_client import CollectorRegistry

from checking import codes, findings, rule_file
from llm_common.errors import ConfigurationError
from llm_common.monitoring.checking import sources as module
from llm_common.monitoring.checking.rules import counted
from llm_common.monitoring.checking.run import check, with_metrics
from llm_common.monitoring.checking.sources import Source, SourceError, fetch, source, sources
from llm_common.monitoring.checking.vocabulary import vocabulary
from llm_common.prometheus import start_metrics_server

pytestmark = pytest.mark.once

WRONG = rule_file("genapp_actions")
Answer = Callable[[BaseHTTPRequestHandler], None]


def shown(*names: str) -> list[str]:
    return [one.shown for one in sources(names)]


def test_folders_are_searched_for_what_could_be_dashboards_or_rules() -> None:
    for name in ("a.json", "b/c.yml", "b/d.yaml", "b/e.txt", ".git/f.json", "node_modules/g.json", "b/.h.yml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(WRONG)
    os.mkfifo("pipe.json")
    assert shown(".") == ["a.json", "b/c.yml", "b/d.yaml"]
    assert shown("b/e.txt", "b", "a.json", "./a.json") == ["b/e.txt", "b/c.yml", "b/d.yaml", "a.json"]


def test_in_folders_other_files_are_passed_over_and_broken_ones_are_not() -> None:
    Path("other.json").write_text('{"name": "package"}')
    Path("other.yml").write_text("services: {grafana: {image: !custom x}}")
    Path("rules.yml").write_text(WRONG)
    Path("broken.json").write_text("{")
    found, files = check(sources(["."]))
    assert [(one.path, one.code) for one in found] == [("broken.json", "MC901"), ("rules.yml", "MC101")]
    assert files == 2


def test_a_named_file_has_to_be_something() -> None:
    Path("other.json").write_text('{"name": "package"}')
    (found,) = check(sources(["other.json"]))[0]
    assert found.text == (
        "it is neither a dashboard nor a rule file; name a dashboard (with panels), a rule file (with groups) or a page"
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", WRONG, ["MC101"]),
        ("a.YML", "groups: [{rules: [{expr: genapp_a}]}]", ["MC101"]),
        ("a.rules", "# rules\ngroups: [{rules: [{expr: genapp_a}]}]", ["MC101"]),
        ("dashboard", '  {"panels": [{"targets": [{"expr": "genapp_a"}]}]}', ["MC101"]),
        ("page", counted("-1"), ["MC509"]),
        ("page.txt", counted("-1").replace("\n", "\r\n"), ["MC509"]),
        ("page.prom", "\ufeff" + counted("-1"), ["MC509"]),
        ("empty", "", ["MC513"]),
    ],
)
def test_what_a_file_is_shows_in_its_name_or_text(name: str, text: str, expected: list[str]) -> None:
    Path(name).write_text(text)
    assert [one.code for one in check(sources([name]))[0]] == expected
    assert codes(text, name="" if name.endswith(("json", "YML")) else name) == expected


def test_standard_input_is_read_as_a_file() -> None:
    (found,) = check(sources(["-"], counted("-1").encode()))[0]
    assert (found.path, found.code) == ("<stdin>", "MC509")


def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file or folder 'missing.json'"):
        source("missing.json")


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as raised:
        source("http://user:secret@127.0.0.1/metrics")
    assert "secret" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    os.symlink("nowhere", "link")
    Path("latin").write_bytes(b"\xe9")
    Path("large").write_bytes(b"a" * 101)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    found, files = check(sources(["link", "latin", "large"]))
    assert files == 3
    assert {(one.path, one.code, one.message) for one in found} == {
        ("link", "MC902", "the file can't be read: No such file or directory"),
        ("latin", "MC902", "the text isn't UTF-8: unexpected end of data"),
        ("large", "MC902", "it has more than 100 bytes"),
    }


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Return what starts a server that answers each request in one way."""
    with ExitStack() as stack:

        def start(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    answer(self)

                def log_message(self, *arguments: object) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/metrics"

        yield start


def answering(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def problem(url: str, timeout: float = 5) -> str:
    with pytest.raises(SourceError) as raised:
        fetch(url, timeout)
    return str(raised.value)


def test_a_page_is_asked_for_as_prometheus_asks(serve: Callable[[Answer], str]) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["Accept"])
        answering(b"a 1\n# EOF\n", Content_Type="application/openmetrics-text; version=1.0.0")(handler)

    assert fetch(serve(answer), 5) == (b"a 1\n# EOF\n", "application/openmetrics-text; version=1.0.0")
    assert asked == ["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"]


def test_a_page_without_a_content_type_is_read(serve: Callable[[Answer], str]) -> None:
    found, files = check(sources([serve(answering(counted("-1").encode()))]))
    assert ([one.code for one in found], files) == (["MC509"], 1)


def test_a_server_of_ours_is_checked() -> None:
    with start_metrics_server(registry=CollectorRegistry()) as server:
        found, files = check(sources([f"http://127.0.0.1:{server.port}/metrics"]))
    assert ([one.code for one in found], files) == (["MC513"], 1)


def test_a_server_that_refuses_is_a_finding() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}/metrics"
        (found,) = check([source(url)])[0]
    assert (found.path, found.code) == (url, "MC902")
    assert found.message == "the page can't be read: Connection refused"


def test_an_error_of_the_server_is_told(serve: Callable[[Answer], str]) -> None:
    assert problem(serve(answering(b"", 404))) == "the server answers 404 Not Found"
    assert problem(serve(answering(b"", 304))) == "the server answers 304 Not Modified"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve: Callable[[Answer], str], status: int) -> None:
    elsewhere = "file:///etc/passwd"
    assert problem(serve(answering(b"", status, Location=elsewhere))) == (
        f"the server answers {status} and sends on to 'file:///etc/passwd'"
    )


def test_a_server_that_is_silent_is_given_up(serve: Callable[[Answer], str]) -> None:
    over = Event()
    waited: list[bool] = []
    url = serve(lambda handler: waited.append(over.wait(30)))
    try:
        assert problem(url, 0.2) == "the server gives no answer within 0.2 seconds"
    finally:
        over.set()


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"#\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "headers", "chunk", "promises"],
)
def test_a_server_that_drips_is_given_up(serve: Callable[[Answer], str], beginning: bytes, drop: bytes) -> None:
    over = Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(beginning)
        while not over.wait(0.05):
            handler.wfile.write(drop)

    began = time.monotonic()
    try:
        assert problem(serve(answer), 0.5) == "the server gives no answer within 0.5 seconds"
    finally:
        over.set()
    assert time.monotonic() - began < 20


def test_a_server_that_has_no_end_is_given_up(serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    url = serve(answering(b"#" * 20_000))
    assert problem(url) == "it has more than 10,000 bytes"


def test_an_answer_that_is_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"hello\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        assert problem(f"http://127.0.0.1:{server.getsockname()[1]}/") == "the page can't be read: hello"
        thread.join()


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:x/", "http://[/", "http://127.0.0.1:1/a b\x00"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    assert problem(url).startswith("the page can't be read: ")


def test_a_page_of_the_application_has_to_be_readable() -> None:
    Path("bad").write_text("{")
    for name, message in (("http://127.0.0.1:1/", "Connection refused"), ("bad", "")):
        with pytest.raises(ConfigurationError, match=f"the option --metrics names '{name}': .*{message}"):
            with_metrics(vocabulary(), [source(name)])


def test_without_pages_nothing_is_added() -> None:
    known = vocabulary()
    assert with_metrics(known, []) is known
    Path("page").write_text("shop_orders 1\n")
    assert with_metrics(known, [source("page")]).complete


def test_a_source_is_shown_from_the_working_directory() -> None:
    Path("a.json").write_text("{}")
    assert source(os.path.abspath("a.json")) == Source("a.json", path=os.path.abspath("a.json"))
    assert findings(WRONG)[0].path == "<stdin>"
