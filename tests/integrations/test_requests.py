"""requests: the contract of clients, and what is particular to its adapters."""

import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from urllib3 import HTTPResponse, HTTPSConnectionPool, Retry
from urllib3.connection import HTTPConnection
from urllib3.exceptions import MaxRetryError

from llm_common.contract import HttpExchange
from llm_common.integrations.requests import TrackedAdapter
from llm_common.testing.conformance.http_client import (
    Answer,
    HttpClientContract,
    Request,
    Sending,
    Wire,
    answer,
    serving,
)
from llm_common.testing.conformance.recording import PATIENCE, Recording, recording


class TestSession(HttpClientContract):
    def client(self, app_type: str) -> requests.Session:
        session = requests.Session()
        session.mount("http://", TrackedAdapter(app_type=app_type))
        return session

    def send(self, client: requests.Session, sending: Sending) -> Iterator[bytes]:
        with client.request(
            sending.method, sending.url, data=sending.body, timeout=sending.timeout, stream=True, allow_redirects=True
        ) as response:
            yield from response.iter_content(65536)


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as recorded:
        yield recorded


def tracked_session(**options: Any) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, TrackedAdapter(app_type="auth_api", **options))
    return session


def failing_at_first(times: int) -> Answer:
    """Answer 503 so many times, then 200."""
    statuses = iter([*times * ["503 Service Unavailable"], "200 OK"])
    return lambda request, wire: answer(b"sorry", next(statuses))(request, wire)


def test_each_retry_after_a_status_is_an_exchange(recorded: Recording) -> None:
    retries = Retry(3, status_forcelist=[503], allowed_methods=None)
    with serving(failing_at_first(2)) as server, tracked_session(max_retries=retries) as session:
        response = session.post(server.url("/token"), data=b"again")
    assert response.status_code == 200
    assert [request.body for request in server.requests] == 3 * [b"again"]
    assert recorded.ended(3) == [
        HttpExchange("POST", "503", "token", "auth_api", 5, 5),
        HttpExchange("POST", "503", "token", "auth_api", 5, 5),
        HttpExchange("POST", "200", "token", "auth_api", 5, 5),
    ]


def test_retries_that_are_used_up(recorded: Recording) -> None:
    retries = Retry(1, status_forcelist=[503])
    with (
        serving(failing_at_first(2)) as server,
        tracked_session(max_retries=retries) as session,
        pytest.raises(requests.exceptions.RetryError),
    ):
        session.get(server.url("/token"))
    assert recorded.ended(2) == 2 * [HttpExchange("GET", "503", "token", "auth_api", 0, 5)]


def test_each_retry_after_a_broken_connection_is_an_exchange(recorded: Recording) -> None:
    def once_deaf(request: Request, wire: Wire) -> None:
        answer(b"hello")(request, wire) if len(server.requests) > 1 else wire.close()

    with serving(once_deaf) as server, tracked_session(max_retries=Retry(2)) as session:
        assert session.get(server.url("/token")).content == b"hello"
    assert recorded.ended(2) == [
        HttpExchange("GET", "error", "token", "auth_api", 0, 0),
        HttpExchange("GET", "200", "token", "auth_api", 0, 5),
    ]


def test_a_request_through_a_proxy(recorded: Recording) -> None:
    with serving(answer(b"hello")) as proxy, tracked_session() as session:
        for number in range(2):
            session.get(f"http://someone:hidden@test.invalid/users/{number}", proxies={"http": proxy.url()})
    assert proxy.requests[0].target == "http://test.invalid/users/0"
    assert recorded.ended(2) == 2 * [HttpExchange("GET", "200", "users/{int}", "auth_api", 0, 5)]


def test_each_attempt_at_a_tunnel_that_a_proxy_refuses(recorded: Recording) -> None:
    with (
        serving(answer(b"", "403 Forbidden")) as proxy,
        tracked_session(max_retries=1) as session,
        pytest.raises(requests.exceptions.ProxyError),
    ):
        session.get("https://test.invalid/token", proxies={"https": proxy.url()})
    assert [request.method for request in proxy.requests] == ["CONNECT", "CONNECT"]
    assert recorded.ended(2) == 2 * [HttpExchange("GET", "error", "token", "auth_api", 0, 0)]


def test_a_tunnel_belongs_to_the_exchange(recorded: Recording) -> None:
    def no_tls(request: Request, wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        wire.close()

    with (
        serving(no_tls) as proxy,
        tracked_session() as session,
        pytest.raises(requests.exceptions.ConnectionError),
    ):
        session.get("https://test.invalid/token", proxies={"https": proxy.url()})
    assert recorded.one() == HttpExchange("GET", "error", "token", "auth_api", 0, 0)


def test_a_tunnel_and_what_is_sent_through_it_are_one_exchange(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dug(pool: HTTPSConnectionPool, connection: object) -> None:
        """Leave out the tunnel, as if it stood; the proxy's answer is no TLS."""

    monkeypatch.setattr(HTTPSConnectionPool, "_prepare_proxy", dug)
    with (
        serving(lambda request, wire: wire.close()) as proxy,
        tracked_session() as session,
        pytest.raises(requests.exceptions.ConnectionError),
    ):
        session.get("https://test.invalid/token", proxies={"https": proxy.url()}, timeout=PATIENCE)
    assert recorded.one() == HttpExchange("GET", "error", "token", "auth_api", 0, 0)


def test_what_is_sent_past_the_adapter_is_not_counted(recorded: Recording) -> None:
    adapter = TrackedAdapter(app_type="auth_api")
    with serving(answer(b"hello")) as server:
        assert adapter.poolmanager.request("GET", server.url()).data == b"hello"
    with serving(answer(b"", "403 Forbidden")) as proxy, pytest.raises(MaxRetryError):
        adapter.proxy_manager_for(proxy.url()).request("GET", "https://test.invalid/", retries=0)
    adapter.close()
    assert recorded.exchanges == ()


@pytest.mark.parametrize(
    ("body", "size"),
    [("Grüße", 7), (io.BytesIO(b"from a file"), 11), (io.StringIO("grüße"), 7), (bytearray(b"bytes"), 5), ("", 0)],
)
def test_bodies_of_all_kinds(body: Any, size: int, recorded: Recording) -> None:
    with serving(answer(b"hello")) as server, tracked_session() as session:
        request = requests.Request("POST", server.url(), headers={"Content-Type": "text/plain"}).prepare()
        request.body = body
        request.headers["Content-Length"] = str(size)
        session.send(request)
    assert len(server.requests[0].body) == size
    assert recorded.one().request_bytes == size


def test_the_raw_response_is_what_it_was(recorded: Recording) -> None:
    with serving(answer(b"hello")) as server, tracked_session() as session:
        response = session.get(server.url(), stream=True)
        assert isinstance(response.raw, HTTPResponse)
        assert response.elapsed.total_seconds() > 0
        assert recorded.exchanges == ()
        assert response.raw.read() == b"hello"
        assert recorded.one() == HttpExchange("GET", "200", "/", "auth_api", 0, 5)
        response.close()
    recorded.one()


def test_a_connection_that_is_given_back_before_the_end(recorded: Recording) -> None:
    with serving(answer(b"hello")) as server, tracked_session() as session:
        response = session.get(server.url(), stream=True)
        assert response.raw.read(2) == b"he"
        response.raw.release_conn()
        assert recorded.one() == HttpExchange("GET", "200", "/", "auth_api", 0, 2)
        response.raw.close()


def test_a_response_that_urllib3_has_read_already(recorded: Recording) -> None:
    class ReadAlready(HTTPResponse):
        pass

    class Connection(HTTPConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3's own
            response = super().getresponse()
            response.__class__ = ReadAlready
            return response

    with serving(answer(b"hello")) as server, tracked_session() as session:
        adapter = session.get_adapter("http://")
        assert isinstance(adapter, TrackedAdapter)
        prepared = requests.Request("GET", server.url()).prepare()
        adapter.get_connection_with_tls_context(prepared, True).ConnectionCls = Connection
        assert session.get(server.url()).content == b"hello"
    assert recorded.one() == HttpExchange("GET", "200", "/", "auth_api", 0, 5)


def test_a_session_survives_pickling(recorded: Recording) -> None:
    with serving(answer(b"hello")) as server, pickle.loads(pickle.dumps(tracked_session())) as session:
        session.get(server.url())
    assert recorded.one() == HttpExchange("GET", "200", "/", "auth_api", 0, 5)


def test_an_app_type_that_names_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="app_type is empty"):
        TrackedAdapter(app_type="")
