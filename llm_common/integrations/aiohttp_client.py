"""HTTP metrics for requests sent with aiohttp: a ``TraceConfig`` for client sessions.

``aiohttp.ClientSession(trace_configs=[tracked_trace_config(app_type="llm")])`` counts every request of the session,
each redirect and each repetition for itself.
"""

import sys
from types import SimpleNamespace
from typing import Any
from weakref import ref

import aiohttp

from llm_common.http_labels import checked_app_type
from llm_common.integrations.client_attempt import ClientAttempt, size_of


def tracked_trace_config(app_type: str) -> aiohttp.TraceConfig:
    """Return a ``TraceConfig`` that counts every request; it may serve several sessions.

    ``app_type`` says what the requests are sent to: ``"llm"``, ``"telegram_api"``, ``"triton"``, or a service's name
    with ``_api``. Raises :class:`TypeError` or :class:`ValueError` where it names nothing.

    An exchange is recorded when the last byte of the response's body has arrived, or the response is closed or
    released. The handshake of a WebSocket is an exchange that ends with its response. Request bodies that aiohttp
    compresses are counted before that. aiohttp doesn't say what a client middleware was answered that sends a request
    again: its earlier attempts count as errors.

    aiohttp suppresses what is raised when a connection is released, and so a backend's fault in strict mode too, unless
    the whole response has come with its head.
    """
    checked = checked_app_type(app_type)

    class Trace(_RequestTrace):
        app_type = checked

    config = aiohttp.TraceConfig(trace_config_ctx_factory=Trace)
    config.on_request_start.append(_started)
    config.on_connection_queued_start.append(_connecting)
    config.on_connection_create_start.append(_connecting)
    config.on_connection_reuseconn.append(_connecting)
    config.on_request_headers_sent.append(_headers_sent)
    config.on_request_chunk_sent.append(_chunk_sent)
    config.on_request_redirect.append(_answered)
    config.on_request_end.append(_answered)
    config.on_request_exception.append(_failed)
    return config


class _RequestTrace(SimpleNamespace):
    """What is known of one request of a session, which may take several attempts."""

    app_type: str
    attempt: ClientAttempt
    sent: bool
    response: "ref[aiohttp.ClientResponse] | None"
    """Weak, since the response holds this too, and its body would live until the garbage collector comes."""

    def begin(self, method: str, path: str) -> None:
        self.attempt = ClientAttempt(self.app_type, method, path)
        self.sent = False
        self.response = None


async def _started(session: aiohttp.ClientSession, trace: Any, params: aiohttp.TraceRequestStartParams) -> None:
    trace.begin(params.method, params.url.raw_path)


async def _connecting(session: aiohttp.ClientSession, trace: Any, params: object) -> None:
    """Begin another attempt where the one before had a response, or was sent and had none."""
    if trace.response is not None or trace.sent:
        trace.attempt.lost()
        trace.begin("", "")  # both are known when the request's head is sent


async def _headers_sent(
    session: aiohttp.ClientSession, trace: Any, params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    trace.sent = True
    trace.attempt.redirected(params.method, params.url.raw_path)


async def _chunk_sent(session: aiohttp.ClientSession, trace: Any, params: aiohttp.TraceRequestChunkSentParams) -> None:
    trace.attempt.request_bytes += size_of(params.chunk)


async def _answered(
    session: aiohttp.ClientSession,
    trace: Any,
    params: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestRedirectParams,
) -> None:
    response = params.response
    if (
        trace.response is not None and trace.response() is response
    ):  # a redirect without a location is answered and over
        return
    trace.response = ref(response)
    attempt, content = trace.attempt, response.content
    attempt.answered(response.status)
    if response.connection is None:  # already given back: the whole body has come
        _ended(attempt, content)
    else:  # the callback must not hold the response, whose last reference closes it
        response.connection.add_callback(lambda: _ended(attempt, content))


def _ended(attempt: ClientAttempt, content: aiohttp.StreamReader) -> None:
    """End an attempt whose connection is given back or closed."""
    compressed = getattr(content, "total_compressed_bytes", None)
    attempt.response_bytes = content.total_bytes if compressed is None else compressed
    problem = content.exception()
    if problem is not None and type(problem) is not aiohttp.ClientConnectionError:
        attempt.failed(problem)
    elif content.is_eof():
        attempt.completed()
    elif isinstance(timeout := sys.exc_info()[1], TimeoutError):  # aiohttp's total timeout leaves no trace elsewhere
        attempt.failed(timeout)
    else:
        attempt.closed()


async def _failed(session: aiohttp.ClientSession, trace: Any, params: aiohttp.TraceRequestExceptionParams) -> None:
    attempt, exception = trace.attempt, params.exception
    attempt.redirected(params.method, params.url.raw_path)
    # A status that the caller takes for an exception (raise_for_status) is a response all the same. Where the response
    # couldn't be parsed, aiohttp raises the same exception because of another, with a status of its own invention.
    if isinstance(exception, aiohttp.ClientResponseError) and exception.__cause__ is None:
        attempt.answered(exception.status)
        if exception.headers is not None:
            attempt.declared(exception.headers.get("Content-Length"))
        attempt.closed()
    else:
        attempt.failed(exception)
