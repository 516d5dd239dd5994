"""What tracking does for httpx and for httpx2, which have the same transports and streams under two names."""

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

from llm_common.http_labels import checked_app_type
from llm_common.integrations.client_attempt import ClientAttempt, size_of


class RequestStream:
    """A request's body, counted as the transport takes it. Reads like the stream that it stands for."""

    def __init__(self, stream: Any, attempt: ClientAttempt, owner: object) -> None:
        self.stream = stream
        self.attempt = attempt
        self.owner = owner
        self.started = False

    def __iter__(self) -> Iterator[bytes]:
        self.started = True
        for part in self.stream:
            self.attempt.request_bytes += size_of(part)
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        async for part in self.stream:
            self.attempt.request_bytes += size_of(part)
            yield part


class ResponseStream:
    """A response's body, counted as it is read. It ends the attempt when it is read to its end, or closed."""

    def __init__(self, stream: Any, attempt: ClientAttempt) -> None:
        self._stream = stream
        self._attempt = attempt

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._stream:
                self._attempt.response_bytes += len(part)
                yield part
        except BaseException as exception:
            self._broken_off(exception)
            raise
        self._attempt.completed()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                self._attempt.response_bytes += len(part)
                yield part
        except BaseException as exception:
            self._broken_off(exception)
            raise
        self._attempt.completed()

    def _broken_off(self, exception: BaseException) -> None:
        if isinstance(exception, GeneratorExit):  # nobody wants the rest
            self._attempt.closed()
        else:
            self._attempt.failed(exception)

    def close(self) -> None:
        """Close the stream."""
        try:
            self._stream.close()
        finally:
            self._attempt.closed()

    async def aclose(self) -> None:
        """Close the stream."""
        try:
            await self._stream.aclose()
        finally:
            self._attempt.closed()


class TrackingTransport:
    """What a transport does before and after it passes a request on."""

    request_stream: ClassVar[type[RequestStream]]
    response_stream: ClassVar[type[ResponseStream]]
    in_memory: ClassVar[type[Any]]
    """The library's stream of a body that is in memory, which can be read any number of times."""
    handler: ClassVar[str]
    """The method that a transport of this kind must have."""

    def __init__(self, transport: Any, app_type: str) -> None:
        self._app_type = checked_app_type(app_type)
        if isinstance(transport, type) or not callable(getattr(transport, self.handler, None)):
            raise TypeError(
                f"{transport!r:.100} is no object with {self.handler}(), so it is no transport that "
                f"{type(self).__name__} can wrap; TrackedTransport wraps transports of Client, AsyncTrackedTransport "
                "those of AsyncClient"
            )
        self._transport = transport

    def _begun(self, request: Any) -> RequestStream:
        """Begin an attempt, and let the request's body be counted while it is under way."""
        attempt = ClientAttempt(self._app_type, request.method, request.url.raw_path.decode("ascii"))
        body = self.request_stream(self._untracked(request.stream), attempt, self)
        request.stream = body
        return body

    def _untracked(self, stream: Any) -> Any:
        """Return ``stream`` without what another attempt with the same request object, under way now, has put on it."""
        inner = stream
        while isinstance(inner, RequestStream):
            if inner.owner is self:
                return inner.stream
            inner = inner.stream
        return stream

    def _restore(self, request: Any, body: RequestStream) -> None:
        """Give the request its own body back, so that redirects and authentication find what they left."""
        if request.stream is body:
            request.stream = body.stream

    def _answered(self, response: Any, body: RequestStream) -> None:
        """Take the response, and let its body be counted as it is read."""
        attempt = body.attempt
        if not body.started and isinstance(body.stream, self.in_memory):
            attempt.request_bytes = sum(map(len, body.stream))  # a transport without a wire takes the body whole
        attempt.answered(response.status_code)
        if response.is_closed:  # made in memory, as mocks do
            if isinstance(response.stream, self.in_memory):
                attempt.response_bytes = sum(map(len, response.stream))
            attempt.completed()
        else:
            response.stream = self.response_stream(response.stream, attempt)


class SyncTrackingTransport(TrackingTransport):
    """Passes requests on to a transport, and counts them."""

    handler = "handle_request"

    def handle_request(self, request: Any) -> Any:
        """Send one request, and return the response as the wrapped transport does."""
        body = self._begun(request)
        try:
            response = self._transport.handle_request(request)
        except BaseException as exception:
            body.attempt.failed(exception)
            raise
        finally:
            self._restore(request, body)
        self._answered(response, body)
        return response

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncTrackingTransport(TrackingTransport):
    """Passes requests on to an asynchronous transport, and counts them."""

    handler = "handle_async_request"

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request, and return the response as the wrapped transport does."""
        body = self._begun(request)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException as exception:
            body.attempt.failed(exception)
            raise
        finally:
            self._restore(request, body)
        self._answered(response, body)
        return response

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)
