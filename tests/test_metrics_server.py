"""The server for applications that have no web server of their own."""

import hmac
import http.client
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import Metric

from llm_common import action_tracking, metrics_server
from llm_common.prometheus import MetricsServer, start_metrics_server
from scraping import Scrape

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TOKEN = "s3cret-Token_for.scrapes~+/="


@pytest.fixture
def filled(scrape: Scrape) -> None:
    with action_tracking("menu_handler"):
        pass


@pytest.fixture
def server(filled: None) -> Iterator[MetricsServer]:
    with start_metrics_server() as server:
        yield server


def test_the_server_serves_the_scrape_on_a_free_port(server: MetricsServer, registry: CollectorRegistry) -> None:
    assert server.port > 0
    assert server.url == f"http://127.0.0.1:{server.port}/metrics"
    assert repr(server) == f"<MetricsServer {server.url}>"
    with urllib.request.urlopen(server.url) as answer:
        assert answer.headers["Content-Type"] == TEXT
        assert answer.read() == generate_latest(registry)
    with pytest.raises(urllib.error.HTTPError, match="405") as caught:
        urllib.request.urlopen(server.url, data=b"x")
    caught.value.close()


def test_a_closed_server_frees_its_port_and_can_be_closed_again(filled: None) -> None:
    server = start_metrics_server()
    port = server.port
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with start_metrics_server(port) as again:
        assert again.port == port


def test_the_server_can_listen_on_ipv6(filled: None) -> None:
    with start_metrics_server(addr="::1") as server:
        assert server.url == f"http://[::1]:{server.port}/metrics"
        with urllib.request.urlopen(server.url) as answer:
            assert b"menu_handler" in answer.read()


@pytest.mark.parametrize("addr", ["127.0.0.1", "no.such.host.invalid"])
def test_an_address_that_cannot_be_had_is_an_error_that_names_it(server: MetricsServer, addr: str) -> None:
    with pytest.raises(OSError, match=f"can't listen on '{addr}', port {server.port}: "):
        start_metrics_server(server.port, addr)
    for port in (70000, -1, "8000"):
        with pytest.raises(OSError, match=f"port {port!r}; accepted: 0 .any free one. to 65535"):
            start_metrics_server(port)  # type: ignore[arg-type]


def test_silent_and_broken_clients_do_not_keep_others_from_scraping(
    server: MetricsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    silent = socket.create_connection(("127.0.0.1", server.port))
    garbage = socket.create_connection(("127.0.0.1", server.port))
    garbage.sendall(b"\x00\xff nonsense\r\n\r\n")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    connection.close()
    garbage.close()
    silent.close()


def test_a_client_that_resets_is_only_a_debug_message(
    server: MetricsServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="llm_common")
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        server._server.handle_error(None, None)
    assert "went away" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_server_left_open_does_not_keep_the_process_alive() -> None:
    code = "from llm_common.prometheus import start_metrics_server; print(start_metrics_server().url)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.startswith("http://127.0.0.1:")
    assert out.stderr == ""


def scraped(server: MetricsServer, authorization: str | None, context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Return the status and the text of an answer."""
    request = urllib.request.Request(server.url)
    if authorization is not None:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, f"{refused.headers['WWW-Authenticate']}: {refused.read().decode()}"


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_with_a_token_those_who_know_it_are_answered(filled: None, authorization: str) -> None:
    with start_metrics_server(token=TOKEN) as server:
        status, text = scraped(server, authorization)
    assert status == 200
    assert "menu_handler" in text


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \xff"],
)
def test_with_a_token_all_others_are_refused_and_nothing_tells_it(
    filled: None, authorization: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with start_metrics_server(token=TOKEN) as server:
        assert scraped(server, authorization) == (401, "Bearer: a bearer token is needed\n")
        assert TOKEN not in f"{server!r} {server.url} {vars(server)}"
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ключ", "=x"])
def test_a_token_that_no_request_could_carry_is_an_error_that_doesn_t_tell_it(token: str) -> None:
    with pytest.raises(ValueError, match="accepted: letters, digits") as caught:
        start_metrics_server(token=token)
    assert not token or token not in str(caught.value)
    with pytest.raises(TypeError, match="is no text; accepted"):
        start_metrics_server(token=b"bytes")  # type: ignore[arg-type]


def test_tokens_are_compared_in_constant_time(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def watched(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return compare(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    app = metrics_server.guarded(lambda environ, start_response: [b"shown"], TOKEN)
    for given in (TOKEN, f"{TOKEN}x", "", "\xe9", "\u043a\u043b\u044e\u0447", "\ud800"):
        parts = app({"HTTP_AUTHORIZATION": f"Bearer {given}"}, lambda *_: None)
        assert (b"".join(parts) == b"shown") is (given == TOKEN)
    assert len(compared) == 6
    assert {expected for _, expected in compared} == {f"Bearer {TOKEN}".encode()}


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for as long as a busy machine may need."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    """See to it that there are as many threads and descriptors afterwards as before."""
    socket.create_server(("127.0.0.1", 0)).close()
    threads, before = threading.active_count(), descriptors()
    yield
    eventually(lambda: threading.active_count() <= threads and descriptors() <= before)


@pytest.mark.usefixtures("nothing_stays")
def test_many_who_scrape_at_once_get_the_same_exact_page(filled: None, registry: CollectorRegistry) -> None:
    expected = generate_latest(registry)
    together = threading.Barrier(64)
    with start_metrics_server() as server:

        def scrape(_: int) -> bytes:
            together.wait(30)
            with urllib.request.urlopen(server.url) as answer:
                return bytes(answer.read())

        with ThreadPoolExecutor(64) as pool:
            assert set(pool.map(scrape, range(64))) == {expected}


def connected(stack: ExitStack, server: MetricsServer, sent: bytes) -> socket.socket:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
    client.sendall(sent)
    return client


@pytest.mark.usefixtures("nothing_stays")
def test_slow_clients_take_no_more_than_their_share_and_others_are_answered(
    filled: None, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "PATIENCE", 0.1)
    before = threading.active_count()
    large = Gauge("large", "more than any buffer takes", ["text"], registry=registry)
    for number in range(100):
        large.labels(f"{number}" + "x" * 100_000).set(1)
    with start_metrics_server() as server, ExitStack() as stack:
        for number in range(128):
            if number % 2:
                connected(stack, server, b"GET /metrics HT")  # and never more of it
            else:
                connected(stack, server, b"GET /metrics HTTP/1.1\r\n\r\n")  # and never reads the answer
        with urllib.request.urlopen(server.url + "?name[]=genapp_action_count_total", timeout=30) as answer:
            assert b"menu_handler" in answer.read()
        assert threading.active_count() <= before + metrics_server.MOST_CLIENTS + 1
    assert metrics_server.MOST_CLIENTS < 64


@pytest.mark.usefixtures("nothing_stays")
def test_a_client_that_drips_is_cut_off(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "CLIENT_TIMEOUT", 0.2)
    with start_metrics_server() as server, ExitStack() as stack:
        client = connected(stack, server, b"GET /metrics HTTP/1.1\r\n")

        def is_cut() -> bool:
            try:
                client.sendall(b"a: b\r\n")
            except ConnectionError:
                return True
            return False

        eventually(is_cut)


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("closed", [False, True], ids=["in time", "by close()"])
def test_a_client_that_never_shakes_hands_is_cut_off(
    filled: None, certificate: "Certificate", closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "CLIENT_TIMEOUT", 1000 if closed else 0.1)
    with ExitStack() as stack:
        server = stack.enter_context(start_metrics_server(certfile=certificate.both))
        client = connected(stack, server, b"")
        eventually(lambda: len(server._server.clients) == 1 or not closed)
        if closed:
            server.close()
        assert client.recv(1000) == b""


@pytest.mark.usefixtures("nothing_stays")
def test_who_waits_for_an_answer_that_takes_long_is_not_cut_off(
    filled: None, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATIENCE", "CLIENT_TIMEOUT"):
        monkeypatch.setattr(metrics_server, name, 0.1)
    monkeypatch.setattr(metrics_server, "MOST_CLIENTS", 1)
    began, go_on = threading.Event(), threading.Event()
    slow = Gauge("slow", "waits for the test", registry=registry)

    def value() -> float:
        began.set()
        assert go_on.wait(30)
        return 1

    slow.set_function(value)
    with start_metrics_server() as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(scraped, server, None)
        assert began.wait(30)
        second = pool.submit(scraped, server, None)  # for whom there is no place yet
        time.sleep(0.5)
        go_on.set()
        assert first.result()[0] == second.result()[0] == 200


@pytest.mark.usefixtures("nothing_stays")
def test_closing_lets_go_of_all_clients_and_of_those_who_wait(filled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "MOST_CLIENTS", 1)
    monkeypatch.setattr(metrics_server, "PATIENCE", 1000)
    with ExitStack() as stack:
        server = start_metrics_server()
        clients = [connected(stack, server, b"GET") for _ in range(3)]
        eventually(lambda: len(server._server.clients) == 1)
        server.close()
        for client in clients:
            with suppress(ConnectionResetError):  # of one that was still in the queue
                assert client.recv(1000) == b""


GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,  # what TLS begins with
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n\r\n" * 10,
    b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
    b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    b"GET /metrics HTTP/1.1\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics\r\n",
    b"BREW /metrics HTTP/1.1\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost",
)


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("tls", [False, True])
def test_garbage_is_no_more_than_garbage(
    filled: None,
    certificate: "Certificate",
    tls: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO, logger="llm_common")
    trusting = ssl.create_default_context(cafile=str(certificate.certfile)) if tls else None
    with start_metrics_server(certfile=certificate.both if tls else None) as server:
        for sent in GARBAGE:
            # It may close the connection at any time.
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client, suppress(OSError):
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        assert scraped(server, None, trusting)[0] == 200
        if not tls:
            with pytest.raises(urllib.error.URLError):
                urllib.request.urlopen(server.url.replace("http", "https"), timeout=30)
    assert [record.message for record in caplog.records] == [f"metrics are served at {server.url}"]
    assert capfd.readouterr().err == ""


def test_what_a_client_sends_is_in_no_log(filled: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with start_metrics_server() as server:
        for sent in (b"Authorization: Bearer hunter2\r\n\r\n", b"GET /?hunter2 HTTP/1.1\r\nA: hunter2\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                client.sendall(sent)
                while client.recv(65536):
                    pass
    assert "hunter2" not in caplog.text


class Certificate(NamedTuple):
    """A certificate for 127.0.0.1 that signed itself, and its key."""

    certfile: Path
    keyfile: Path
    both: Path
    locked: Path
    """A key that needs a password."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "metrics")])
    now = datetime.now(UTC)
    chain = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )

    def pem(encryption: KeySerializationEncryption) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    written = Certificate(*(folder / f"{one}.pem" for one in Certificate._fields))
    contents = (chain, pem(NoEncryption()), chain + pem(NoEncryption()), pem(BestAvailableEncryption(b"x")))
    for path, content in zip(written, contents, strict=True):
        path.write_bytes(content)
    return written


@pytest.mark.parametrize("apart", [True, False], ids=["key apart", "one file"])
def test_with_a_certificate_it_speaks_tls(filled: None, certificate: Certificate, apart: bool) -> None:
    files = (certificate.certfile, certificate.keyfile) if apart else (str(certificate.both), None)
    trusting = ssl.create_default_context(cafile=str(certificate.certfile))
    with start_metrics_server(certfile=files[0], keyfile=files[1], token=TOKEN) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert scraped(server, f"Bearer {TOKEN}", trusting)[0] == 200
        assert scraped(server, None, trusting)[0] == 401


def test_a_client_that_never_shakes_hands_does_not_keep_others_from_scraping(
    filled: None, certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trusting = ssl.create_default_context(cafile=str(certificate.certfile))
    with (
        start_metrics_server(certfile=certificate.both) as server,
        socket.create_connection(("127.0.0.1", server.port)),
        socket.create_connection(("127.0.0.1", server.port)) as plain,
    ):
        plain.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b"200 OK" not in plain.recv(1000)
        assert scraped(server, None, trusting)[0] == 200
    assert "Traceback" in caplog.text  # at debug level
    assert all(record.levelno == logging.DEBUG for record in caplog.records if "went away" in record.message)


def test_a_client_of_an_old_version_of_tls_is_refused(filled: None, certificate: Certificate) -> None:
    old = ssl.create_default_context(cafile=str(certificate.certfile))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with start_metrics_server(certfile=certificate.both) as server, pytest.raises(urllib.error.URLError):
        scraped(server, None, old)


def test_a_certificate_that_cannot_be_used_is_an_error_that_names_its_files(certificate: Certificate) -> None:
    for certfile, keyfile in (
        ("missing.pem", None),
        (certificate.keyfile, None),
        (certificate.certfile, certificate.certfile),
        (certificate.certfile, certificate.locked),
    ):
        with pytest.raises(OSError, match=f"can't use the certificate in '{certfile}'"):
            start_metrics_server(certfile=certfile, keyfile=keyfile)
    with pytest.raises(ValueError, match="keyfile needs certfile"):
        start_metrics_server(keyfile=certificate.keyfile)


def test_a_client_whose_answer_is_made_while_the_server_closes_is_let_go_then() -> None:
    begun, go_on, registry = threading.Event(), threading.Event(), CollectorRegistry()

    class Slow:
        def collect(self) -> Iterator[Metric]:
            begun.set()
            assert go_on.wait(60)
            yield Metric("shop", "x" * 30_000_000, "gauge")

    registry.register(Slow())
    server = start_metrics_server(port=0, registry=registry)
    with socket.create_connection((server.addr, server.port)) as client:  # which reads nothing
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert begun.wait(60)
        server.close()
        server._server.left.clear()
        go_on.set()
        assert server._server.left.wait(20)  # by itself it would take CLIENT_TIMEOUT
    assert not server._server.clients
