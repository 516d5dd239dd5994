"""HTTP metrics for requests sent with ``requests``: an adapter that is mounted on a session.

``session.mount("https://", TrackedAdapter(app_type="auth_api"))`` counts every request whose URL begins so, each
redirect and each retry for itself.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from http.client import IncompleteRead
from typing import Any, cast

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, PoolManager
from urllib3.exceptions import HTTPError
from urllib3.util.request import body_to_chunks

from llm_common.http_labels import checked_app_type
from llm_common.integrations.client_attempt import ClientAttempt, size_of


class TrackedAdapter(HTTPAdapter):
    """Counts every request that it sends: ``session.mount("https://", TrackedAdapter(app_type="auth_api"))``.

    ``app_type`` says what the requests are sent to: ``"llm"``, ``"telegram_api"``, ``"triton"``, or a service's name
    with ``_api``; everything else is :class:`requests.adapters.HTTPAdapter`'s. Retries that it makes itself
    (``max_retries``) are counted one by one.

    An exchange is recorded when the response's body was read to its end, or closed. Raises :class:`TypeError` or
    :class:`ValueError` for an ``app_type`` that names nothing.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_app_type"]  # noqa: RUF012 - as the base class has it, for pickling

    def __init__(self, *args: Any, app_type: str, **kwargs: Any) -> None:
        self._app_type = checked_app_type(app_type)
        super().__init__(*args, **kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Set up the pools of connections."""
        super().init_poolmanager(*args, **kwargs)
        _track(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pools of connections through a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        _track(manager)
        return manager

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """Send one request, and return the response as :class:`requests.adapters.HTTPAdapter` does."""
        token = _sending.set(_Sending(self._app_type, request))
        try:
            return super().send(request, *args, **kwargs)
        finally:
            _sending.reset(token)


class _Sending:
    """One request that an adapter is sending, which may take several attempts."""

    def __init__(self, app_type: str, request: PreparedRequest) -> None:
        self._app_type = app_type
        self._request = request
        self._begun: ClientAttempt | None = None

    @contextmanager
    def attempt(self) -> Generator[ClientAttempt]:
        """Give the attempt that is under way; what is raised meanwhile ends it, and another follows."""
        if self._begun is None:
            self._begun = ClientAttempt(self._app_type, str(self._request.method), self._request.path_url)
        try:
            yield self._begun
        except BaseException as exception:
            self._begun.failed(exception)
            self._begun = None
            raise

    def answered(self) -> None:
        """Leave the attempt to its response; another one may follow."""
        self._begun = None


_sending: ContextVar[_Sending] = ContextVar("llm_common_sending")
"""What the pools are asked for by :meth:`TrackedAdapter.send`; retries stay inside one call of it."""


def _track(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _tracked_pool(kind) for scheme, kind in manager.pool_classes_by_scheme.items()
    }


@lru_cache(maxsize=64)
def _tracked_pool(kind: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    return kind if issubclass(kind, _TrackedPool) else type(kind.__name__, (_TrackedPool, kind), {})


class _TrackedPool(HTTPConnectionPool):
    """Sees each attempt, where a pool repeats a request by itself."""

    def _prepare_proxy(self, conn: Any) -> None:
        sending = _sending.get(None)
        if sending is None:
            super()._prepare_proxy(conn)
        else:
            with sending.attempt():
                super()._prepare_proxy(conn)

    def _make_request(self, conn: Any, method: str, url: str, body: Any = None, *args: Any, **kwargs: Any) -> Any:
        sending = _sending.get(None)
        if sending is None:
            return super()._make_request(conn, method, url, body, *args, **kwargs)
        with sending.attempt() as attempt:
            if body is not None:
                body = _counted(body_to_chunks(body, method, conn.blocksize).chunks or (), attempt)
            response = super()._make_request(conn, method, url, body, *args, **kwargs)
        sending.answered()
        attempt.answered(response.status)
        if response.length_remaining == 0:
            attempt.completed()
        elif type(response) is HTTPResponse:
            response.__class__ = _TrackedResponse
            cast("_TrackedResponse", response)._llm_common_attempt = attempt
        else:  # HTTP/2, which urllib3 reads whole
            attempt.declared(response.headers.get("Content-Length"))
            attempt.completed()
        return response


def _counted(chunks: Iterable[Any], attempt: ClientAttempt) -> Generator[Any]:
    for chunk in chunks:
        encoded = chunk.encode("utf-8") if isinstance(chunk, str) else chunk
        attempt.request_bytes += size_of(encoded)
        yield encoded


class _TrackedResponse(HTTPResponse):
    """A response whose body is counted as it is read; it ends the attempt at its end, or when it is closed.

    urllib3 makes its responses itself, deep inside; so they become this class when they come.
    """

    _llm_common_attempt: ClientAttempt
    _llm_common_reading = False

    @contextmanager
    def _error_catcher(self) -> Generator[None]:
        """Go around everything that urllib3 reads off the wire."""
        attempt = self._llm_common_attempt
        self._llm_common_reading = True  # urllib3 closes the response before it says what is wrong
        try:
            with super()._error_catcher():
                yield
        except HTTPError as exception:
            attempt.failed(exception)
            raise
        except BaseException:  # not urllib3's: thrown in by the caller, or a signal
            attempt.closed()
            raise
        finally:
            self._llm_common_reading = False
        if self.isclosed():
            attempt.completed()

    def _fp_read(self, *args: Any, **kwargs: Any) -> bytes:
        return self._count(super()._fp_read, *args, **kwargs)

    def _handle_chunk(self, *args: Any) -> bytes:
        return self._count(super()._handle_chunk, *args)

    def _count(self, read: Any, *args: Any, **kwargs: Any) -> bytes:
        try:
            data: bytes = read(*args, **kwargs)
        except IncompleteRead as broken:
            self._llm_common_attempt.response_bytes += len(broken.partial)
            raise
        self._llm_common_attempt.response_bytes += len(data)
        return data

    def release_conn(self) -> None:
        """Give the connection back; what wasn't read of the body is given up."""
        try:
            super().release_conn()
        finally:
            self._given_up()

    def close(self) -> None:
        """Close the response."""
        try:
            super().close()
        finally:
            self._given_up()

    def _given_up(self) -> None:
        if not self._llm_common_reading:
            self._llm_common_attempt.closed()
