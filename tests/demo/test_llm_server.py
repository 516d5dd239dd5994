import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from random import Random
from time import monotonic
from typing import Any

import pytest

from llm_common.demo.chance import seeded
from llm_common.demo.llm_server import ADDRESS, PATH, LlmServer, Moods

CALM = Moods(0, 0, 0, thinking=(0, 0))
REQUEST = {"model": "demo", "messages": [{"role": "user", "content": "Do you sell tea?"}]}


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer(seeded(1, "LLM"), CALM) as running:
        yield running


def post(server: LlmServer, body: bytes, path: str = PATH) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection(ADDRESS, server.port, timeout=10)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask(server: LlmServer) -> int:
    return post(server, json.dumps(REQUEST).encode())[0]


def test_the_answer_has_the_shape_of_a_chat_completion(server: LlmServer) -> None:
    status, content = post(server, json.dumps(REQUEST).encode())
    assert (status, content["object"], content["model"]) == (200, "chat.completion", "demo")
    assert content["choices"][0]["message"]["role"] == "assistant"
    assert content["usage"]["prompt_tokens"] == 4
    assert content["usage"]["completion_tokens"] > 0


def test_a_call_of_a_tool_has_tokens_too(server: LlmServer) -> None:
    tools = [{"type": "function", "function": {"name": "search_articles"}}]
    _, content = post(server, json.dumps(REQUEST | {"tools": tools}).encode())
    assert content["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"messages": 3}', b'{"messages": [[]]}', b"\xff"])
def test_a_body_that_is_no_request_is_refused(server: LlmServer, body: bytes) -> None:
    assert post(server, body)[0] == 400


def test_any_other_path_is_not_found(server: LlmServer) -> None:
    assert post(server, json.dumps(REQUEST).encode(), "/v1/embeddings")[0] == 404


@pytest.mark.parametrize(("moods", "status"), [(Moods(0, 1, 0, (0, 0)), 429), (Moods(0, 0, 1, (0, 0)), 500)])
def test_a_server_in_trouble_answers_with_its_status(moods: Moods, status: int) -> None:
    with LlmServer(seeded(1, "LLM"), moods) as server:
        assert ask(server) == status


def test_an_outage_meets_every_request_and_ends() -> None:
    with LlmServer(seeded(1, "LLM"), CALM, outage=1) as server:
        until = monotonic() + 20
        assert ask(server) == 503
        while (status := ask(server)) == 503:
            assert monotonic() < until
        assert status == 200


def test_the_same_seed_gives_the_same_troubles_in_the_same_order() -> None:
    moods = Moods(0, 0.3, 0.3, (0, 0))
    runs = []
    for _ in range(2):
        with LlmServer(seeded(5, "LLM"), moods) as server:
            runs.append([ask(server) for _ in range(12)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 429, 500}


class Watched(Random):
    """Tells when the server began to think."""

    def __init__(self) -> None:
        super().__init__(1)
        self.thinking = threading.Event()

    def uniform(self, a: float, b: float) -> float:
        self.thinking.set()
        return super().uniform(a, b)


def test_closing_does_not_wait_for_a_slow_answer_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    began = monotonic()
    chance = Watched()
    with LlmServer(chance, Moods(1, 0, 0, slow_thinking=(600, 600))) as server:
        connection = HTTPConnection(ADDRESS, server.port, timeout=10)
        connection.request("POST", PATH, json.dumps(REQUEST))
        assert chance.thinking.wait(10)
    assert connection.getresponse().status == 200
    connection.close()
    assert monotonic() - began < 60
    assert set(threading.enumerate()) == before


def test_a_client_that_goes_away_in_the_middle_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    with LlmServer(seeded(1, "LLM"), CALM) as server:
        with socket.create_connection((ADDRESS, server.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            client.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert ask(server) == 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_connects_and_says_nothing_is_given_up_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llm_common.demo.llm_server._Handler.timeout", 0.01)
    with LlmServer(seeded(1, "LLM"), CALM) as server, socket.create_connection((ADDRESS, server.port), 20) as client:
        assert client.recv(1) == b""  # the server has closed
    assert capfd.readouterr() == ("", "")
