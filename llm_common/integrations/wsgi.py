"""HTTP metrics for applications behind WSGI (PEP 3333): Flask, Django, or any other."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from llm_common.http_exchange import Exchange, declared_length
from llm_common.http_labels import (
    CLIENT_GONE,
    SERVER,
    UNHANDLED,
    UNKNOWN,
    checked_app_type,
    status_label,
    template_label,
)
from llm_common.integrations.excluding import DEFAULT_EXCLUDE, excluder
from llm_common.integrations.wsgi_routes import DjangoMark, django_template, flask_template

logger = logging.getLogger("llm_common")

TRACKED = "llm_common.tracked"
"""Stands in the environ of a request that a middleware has seen, so that another one further in leaves it alone."""


class MetricsMiddleware:
    """Counts every HTTP request: ``app.wsgi_app = MetricsMiddleware(app.wsgi_app)`` in Flask.

    In Django: ``application = MetricsMiddleware(get_wsgi_application())``. The outermost middleware sees what is really
    sent, compressed bodies included. A request is recorded when the server has taken the last byte of its response, or
    closes it. ``exclude`` are paths that aren't counted (:func:`~llm_common.integrations.excluding.excluder`).
    """

    def __init__(
        self, app: WSGIApplication, *, app_type: str = SERVER, exclude: str | Iterable[str] = DEFAULT_EXCLUDE
    ) -> None:
        self.app = app
        self.app_type = checked_app_type(app_type)
        self._excluded = excluder(exclude)
        self._logged = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, and count it."""
        if TRACKED in environ:
            return self.app(environ, start_response)
        environ[TRACKED] = True
        path = as_text(environ.get("PATH_INFO") or "")
        if self._excluded(path):
            return self.app(environ, start_response)
        request = Request(self, environ, path, start_response)
        with DjangoMark() as request.django:
            try:
                result = self.app(environ, request.start_response)
            except BaseException as exception:
                request.left_by(exception)
                raise
        request.django = None  # it begins its responses before it returns them
        return request.passed_on(result)

    def log(self, fault: Exception) -> None:
        """Log that a request's route could not be found, once as a warning."""
        level = logging.DEBUG if self._logged else logging.WARNING
        self._logged = True
        with suppress(Exception):  # a broken log handler must not reach the application either
            logger.log(level, "the route of a request can't be told; it is counted as %s", UNKNOWN, exc_info=fault)


class Request(Exchange):
    """One request under way, between a server and an application."""

    __slots__ = (
        "_environ",
        "_fault",
        "_handled_before",
        "_headers",
        "_method",
        "_middleware",
        "_path",
        "_resource",
        "_script_name",
        "_start_response",
        "_status",
        "django",
    )

    def __init__(
        self, middleware: MetricsMiddleware, environ: WSGIEnvironment, path: str, start_response: StartResponse
    ) -> None:
        self._method = str(environ.get("REQUEST_METHOD") or "")
        super().__init__(middleware.app_type, self._method)
        self._middleware = middleware
        self._environ = environ
        self._start_response = start_response
        self._path = path
        self._script_name = as_text(environ.get("SCRIPT_NAME", ""))
        self._status = ""
        """What the response began with, three digits; empty until then."""
        self._headers: Any = ()
        self._resource: str | None = None
        self._fault: OSError | None = None
        """What the server raised when it could not read from the client or write to it."""
        self._handled_before = sys.exc_info()[1]
        self.django: DjangoMark | None = None
        """Tells whether Django handles the request, as long as it may."""
        if "wsgi.input" in environ:
            environ["wsgi.input"] = CountedInput(environ["wsgi.input"], self)

    def start_response(self, status: Any, headers: Any, *exc_info: Any, **named: Any) -> Callable[[bytes], object]:
        """Pass the beginning of the response on."""
        write = self._start_response(status, headers, *exc_info, **named)
        self._status = status_label(status[:3]) if isinstance(status, str) else ""
        self._headers = headers
        if self._resource is None:
            self._resource = self._find_resource()  # now, since frameworks forget the request before they return

        def counted_write(data: bytes) -> None:
            try:
                write(data)
            except OSError as fault:
                self._fault = fault
                raise
            self.took(data)

        return counted_write

    def passed_on(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """Return what the server gets for the application's ``result``."""
        file_wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(result, file_wrapper):
            self._watch_file(result)
            return result
        return SizedBody(result, self) if hasattr(result, "__len__") else Body(result, self)

    def took(self, data: object) -> None:
        """Count a part of the body. What isn't bytes is counted as nothing; the server will complain."""
        if isinstance(data, bytes):
            self.response_bytes += len(data)

    def left_by(self, exception: BaseException) -> None:
        """End the request, whose application raised ``exception``."""
        self._end(CLIENT_GONE if exception is self._fault else UNHANDLED, exception)

    def left_by_server(self, fault: OSError) -> None:
        """Remember what the server raised while the application read from the client."""
        self._fault = fault

    def completed(self) -> None:
        """End the request, whose response the server has taken to its end."""
        self._end(self._status or UNHANDLED)

    def closed(self) -> None:
        """End the request, unless it has ended, now that the server closes the response."""
        if self.ended:
            return
        fault = self._fault_of_server()
        if fault is not None:
            self._end(CLIENT_GONE if isinstance(fault, OSError | GeneratorExit) else UNHANDLED)
        elif self._status and not self._has_all():
            self._end(CLIENT_GONE)
        else:
            self.completed()

    def _fault_of_server(self) -> BaseException | None:
        """Return the exception by which the server is being left, since it calls ``close()`` on its way out."""
        fault = sys.exc_info()[1]
        return None if fault is self._handled_before else fault

    def _has_all(self) -> bool:
        length = self._content_length()
        return self._has_no_body() or (length is not None and self.response_bytes >= length)

    def _has_no_body(self) -> bool:
        return self._method == "HEAD" or self._status in {"204", "304"} or self._status.startswith("1")

    def _content_length(self) -> int | None:
        try:
            return declared_length(next(value for name, value in self._headers if name.lower() == "content-length"))
        except Exception:  # there is none, or what there is are no headers: the server will complain
            return None

    def _watch_file(self, result: Any) -> None:
        """End the request when the server closes a file, which it must get as it is to send it by itself."""
        close = getattr(result, "close", None)
        size = _rest_of_file(result)

        def watched_close() -> None:
            try:
                if not self.ended:
                    fault = self._fault_of_server()
                    if fault is None:
                        self._sent_file(size)
                    else:
                        self._end(CLIENT_GONE if isinstance(fault, OSError) else UNHANDLED)
            finally:
                if close is not None:
                    close()

        try:
            result.close = watched_close
        except (AttributeError, TypeError):  # a server's own type, whose instances can't be changed
            self._sent_file(size)

    def _sent_file(self, size: int) -> None:
        length = self._content_length()
        self.response_bytes += size if length is None else length
        self.completed()

    def _end(self, status: str, exception: BaseException | None = None) -> None:
        if self._has_no_body():
            self.response_bytes = 0
        self.end(status, self._resource or self._find_resource(), exception)
        # The environ has the stream of the body, which has this, which has the environ: nothing of it is to wait for
        # the garbage collector.
        stream = self._environ.get("wsgi.input")
        if isinstance(stream, CountedInput):
            self._environ["wsgi.input"] = stream.uncounted
        self._environ = {}

    def _find_resource(self) -> str:
        try:
            template = flask_template(self._middleware.app, self._environ)
            if template is None and self.django is not None and self.django.is_set:
                template = django_template(self._environ, redirected=self._status.startswith("3"))
            return UNKNOWN if template is None else template_label(f"{self._mounted_at()}/{template}")
        except Exception as fault:  # whatever a framework in another version may raise
            self._middleware.log(fault)
            return UNKNOWN

    def _mounted_at(self) -> str:
        """Return the prefix under which the application is mounted within the one that the middleware has."""
        script_name = as_text(self._environ.get("SCRIPT_NAME", ""))
        if not script_name.startswith(self._script_name):
            return ""
        prefix = script_name[len(self._script_name) :]
        # A mount takes its prefix from the path; a setting or a header of a proxy doesn't, and is none of the path.
        rest = as_text(self._environ.get("PATH_INFO", ""))
        return prefix if self._path == prefix + rest else ""


def _rest_of_file(wrapper: Any) -> int:
    """Return how many bytes a server's file wrapper has still to send; 0 where that can't be told."""
    file: Any = getattr(wrapper, "filelike", None) or getattr(wrapper, "file", None)
    try:
        return max(os.fstat(file.fileno()).st_size - int(file.tell()), 0)
    except Exception:  # no file of the system's, or a wrapper of another kind
        return 0


class Body:
    """An application's response, counted as the server takes it."""

    __slots__ = ("_iterator", "_request", "_result")

    def __init__(self, result: Iterable[bytes], request: Request) -> None:
        self._result = result
        self._iterator: Any = None
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        if self._iterator is None:  # an iterator of an iterator is the same one, and doesn't begin again
            try:
                self._iterator = iter(self._result)
            except BaseException as exception:
                self._request.left_by(exception)
                raise
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            iter(self)
        try:
            part: bytes = next(self._iterator)
        except StopIteration:
            self._request.completed()
            raise
        except BaseException as exception:
            self._request.left_by(exception)
            raise
        self._request.took(part)
        return part

    def close(self) -> None:
        """End the request, and close the application's response if it can be closed."""
        try:
            self._request.closed()
        finally:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()


class SizedBody(Body):
    """A response in so many parts, known beforehand. A server may set the ``Content-Length`` where it is one."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._result)  # type: ignore[arg-type] # only what has a length is wrapped so


READERS = frozenset({"read", "read1", "readall", "readinto", "readinto1", "readline", "readlines"})
"""The methods of an input stream that take something out of it."""


class CountedInput:
    """A request's body, counted as the application reads it. It has all attributes of the server's stream."""

    def __init__(self, stream: Any, request: Request) -> None:
        self.uncounted = stream
        self._request = request

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.uncounted, name)
        if name not in READERS:
            return attribute

        counted = partial(counted_taking, self._request, attribute)
        setattr(self, name, counted)  # found directly from now on
        return counted

    def __iter__(self) -> Iterator[bytes]:
        lines = iter(self.uncounted)
        while (line := counted_taking(self._request, next, lines, None)) is not None:
            yield line

    def __next__(self) -> bytes:
        line: bytes = counted_taking(self._request, next, self.uncounted)
        return line


def counted_taking(request: Request, take: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Take something out of an input stream, and count it."""
    try:
        taken = take(*args, **named)
    except OSError as fault:
        request.left_by_server(fault)
        raise
    if isinstance(taken, int):
        request.request_bytes += taken
    elif isinstance(taken, list):
        request.request_bytes += sum(map(len, taken))
    elif taken:
        request.request_bytes += len(taken)
    return taken


def as_text(value: str) -> str:
    """Return a string of the environ, whose characters are bytes, as the text that it means."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:  # no UTF-8, or decoded already
        return value
