"""HTTP metrics for requests sent with httpx2: transports that wrap a client's own.

``httpx2.Client(transport=TrackedTransport(app_type="llm"))`` counts every request of the client, each redirect and each
repetition for itself. So does the OpenAI SDK with ``OpenAI(http_client=httpx2.Client(transport=...))``.
"""

import httpx2

from llm_common.integrations.httpx_transport import (
    AsyncTrackingTransport,
    RequestStream,
    ResponseStream,
    SyncTrackingTransport,
)


class _RequestStream(RequestStream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class _ResponseStream(ResponseStream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


class TrackedTransport(SyncTrackingTransport, httpx2.BaseTransport):
    """Counts every request that a ``Client`` sends: ``Client(transport=TrackedTransport(app_type="llm"))``.

    ``transport`` is the one that sends; by default a new ``HTTPTransport()``. A client that is given a transport
    ignores its own ``verify``, ``cert``, ``http2``, ``limits`` and the proxies of the environment: give them to the
    transport that is wrapped. ``app_type`` says what the requests are sent to: ``"llm"``, ``"telegram_api"``,
    ``"triton"``, or a service's name with ``_api``.

    An exchange is recorded when the response's body was read to its end, or closed. Raises :class:`TypeError` or
    :class:`ValueError` for an ``app_type`` that names nothing, or what isn't a transport of a ``Client``.
    """

    request_stream = _RequestStream
    response_stream = _ResponseStream
    in_memory = httpx2.ByteStream

    def __init__(self, transport: httpx2.BaseTransport | None = None, *, app_type: str) -> None:
        super().__init__(httpx2.HTTPTransport() if transport is None else transport, app_type)


class AsyncTrackedTransport(AsyncTrackingTransport, httpx2.AsyncBaseTransport):
    """Counts every request that an ``AsyncClient`` sends; otherwise as :class:`TrackedTransport`.

    By default it wraps a new ``AsyncHTTPTransport()``.
    """

    request_stream = _RequestStream
    response_stream = _ResponseStream
    in_memory = httpx2.ByteStream

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None, *, app_type: str) -> None:
        super().__init__(httpx2.AsyncHTTPTransport() if transport is None else transport, app_type)
