"""Whatever a server does, ``llm-common doctor`` ends in time, with a finding that says what it was."""

import gzip
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread

import pytest

from doctoring import HEALTHY
from llm_common.doctor.run import as_json, as_text, examine

Answer = Callable[[socket.socket, Event], None]


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve what the test is parametrized with, to each client in a thread; yield the address."""
    answer: Answer = request.param
    over = Event()
    threads: list[Thread] = []

    def talk(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(0.2)  # so that a client which reads no more doesn't hold the test up
            client.recv(65536)
            answer(client, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(Thread(target=talk, args=(listening.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        thread = Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in threads:
            one.join()


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode()


def sends(*parts: bytes) -> Answer:
    def answer(client: socket.socket, over: Event) -> None:
        for part in parts:
            client.sendall(part)

    return answer


def sends_without_end(first: bytes, then: bytes, pause: float = 0) -> Answer:
    def answer(client: socket.socket, over: Event) -> None:
        client.sendall(first)
        while not over.wait(pause):
            client.sendall(then)

    return answer


TEXT = "Content-Type: text/plain"
BOMB = gzip.compress(b"a" * 50_000_000)
NO_ANSWER = "the server gives no answer within 0.5 seconds"
NO_PAGE = "it isn't a page that Prometheus could read: "

SERVERS: dict[str, tuple[Answer, str, str]] = {
    "an endless body": (sends_without_end(head(TEXT), b"a 1\n" * 1000, 0.001), "DR401", NO_ANSWER),
    "an endless chunk": (
        sends_without_end(head(TEXT, "Transfer-Encoding: chunked") + b"ffffffffffff\r\n", b"a" * 1000, 0.01),
        "DR401",
        NO_ANSWER,
    ),
    "a body that drips": (sends_without_end(head(TEXT, "Content-Length: 1000000000"), b"a", 0.05), "DR401", NO_ANSWER),
    "a head that drips": (sends_without_end(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.05), "DR401", NO_ANSWER),
    "silence": (sends_without_end(b"", b"", 0.05), "DR401", NO_ANSWER),
    "a bomb": (sends(head(TEXT, "Content-Encoding: gzip"), BOMB), "DR406", NO_PAGE),
    "too few bytes": (sends(head(TEXT, "Content-Length: 1000000000"), b"a 1\n"), "DR406", "MC513: "),
    "a length of nonsense": (sends(head(TEXT, "Content-Length: -5"), b"a 1\n"), "DR406", "MC513: "),
    "a flood of headers": (sends(head(*["A: b"] * 1000)), "DR401", "the page can't be read: got more than 100 headers"),
    "a long header": (sends(head("A: " + "b" * 100_000)), "DR401", "the page can't be read: got more than 65536 bytes"),
    "a redirect to a file": (
        sends(head("Location: file:///etc/passwd", status="302 Found")),
        "DR401",
        "the server answers 302 and sends on to 'file:///etc/passwd'",
    ),
    "a redirect to itself": (
        sends(head("Location: /metrics", status="307 Temporary Redirect")),
        "DR401",
        "the server answers 307 and sends on to '/metrics'",
    ),
    "a charset of nonsense": (
        sends(head("Content-Type: text/plain; charset=\xff\x00none"), HEALTHY.encode("utf-16")),
        "DR406",
        NO_PAGE,
    ),
    "no HTTP": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), "DR401", "the page can't be read: "),
    "TLS": (sends(b"\x15\x03\x01\x00\x02\x02\x0a"), "DR401", "the page can't be read: "),
    "nothing": (sends(), "DR401", "the page can't be read: "),
    "a long label": (
        sends(head(TEXT), HEALTHY.replace("prod", "x:" * 200_000).encode()),
        "DR104",
        "env is 'x:x:",
    ),
    "many lines": (
        sends(head(TEXT), HEALTHY.encode(), b'genapp_x_total{a="b"} 1\n' * 2_000),
        "DR406",
        "MC506: ",
    ),
}


@pytest.mark.parametrize(("served", "code", "message"), SERVERS.values(), ids=[*SERVERS], indirect=["served"])
def test_the_doctor_ends_in_time_with_a_finding(served: str, code: str, message: str) -> None:
    began = time.monotonic()
    found = examine([served], timeout=0.5)
    assert time.monotonic() - began < 20
    assert any(one.code == code and one.message.startswith(message) for one in found), as_text(found)
    assert len(as_text(found)) < 20_000
    assert as_json(found)
