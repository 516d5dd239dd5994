"""One request that the application sends, as every client integration records it, whatever the library."""

import sys
from typing import Any

from llm_common.http_exchange import Exchange, declared_length
from llm_common.http_labels import CANCELLED, ERROR, failure_label, method_label, path_label, status_label

SWITCHING_PROTOCOLS = 101
"""The status of a response after which the connection no longer speaks HTTP."""


def size_of(part: Any) -> int:
    """Return the size of a part of a body in bytes; 0 for what is no bytes, which the library itself will refuse."""
    if isinstance(part, bytes):
        return len(part)
    try:
        return memoryview(part).nbytes
    except TypeError:
        return 0


class ClientAttempt(Exchange):
    """One attempt at an exchange, from the moment that it is begun to the last byte of the response's body.

    A redirect that is followed and a request that is repeated are attempts of their own. Of the methods that end an
    attempt the first call counts.
    """

    __slots__ = ("_path", "_status")

    def __init__(self, app_type: str, method: str, path: str) -> None:
        super().__init__(app_type, method)
        self._path = path
        self._status = ERROR

    def redirected(self, method: str, path: str) -> None:
        """Take the method and path that the attempt turned out to have."""
        self.method = method_label(method)
        self._path = path

    def answered(self, status: int) -> None:
        """Take the status of the response, whose body is yet to come."""
        self._status = status_label(status)
        if status == SWITCHING_PROTOCOLS:  # what follows is no body, and may go on for hours
            self.completed()

    def declared(self, content_length: str | None) -> None:
        """Count the body by its Content-Length, where its bytes can't be seen."""
        if self.method != "HEAD":
            self.response_bytes = declared_length(content_length) or 0

    def completed(self) -> None:
        """Record that the body was read to its end, or that there is none."""
        self.end(self._status, self._resource())

    def lost(self) -> None:
        """Record that there was no response; it isn't known why."""
        self.end(ERROR, self._resource())

    def failed(self, exception: BaseException) -> None:
        """Record that there was no response, or that its body broke off, because of ``exception``."""
        self.end(failure_label(exception), self._resource(), exception)

    def closed(self) -> None:
        """Record that the response was closed before its end: by a cancellation, or because the caller had enough.

        It is a cancellation where one is being handled. A caller's own exception says nothing about the exchange.
        """
        exception = sys.exc_info()[1]
        cancelled = not isinstance(exception, Exception | GeneratorExit | None)
        self.end(CANCELLED if cancelled else self._status, self._resource(), exception)

    def _resource(self) -> str:
        return path_label(self._path, self.app_type)
