"""HTTP exchanges: what integrations record while one is under way, and ``http_tracking`` for those that none sees."""

from time import perf_counter

from llm_common.bound import http_bindings, stops_program
from llm_common.contract import HttpSeries
from llm_common.dispatch import bind_http, misused
from llm_common.errors import shown
from llm_common.http_labels import (
    ERROR,
    LONG,
    MAX_RESOURCE,
    METHODS,
    checked_app_type,
    method_label,
    path_label,
    status_label,
    template_label,
)


class Exchange:
    """One HTTP exchange under way. It begins when it is made and is recorded once, however often it is ended."""

    __slots__ = ("app_type", "ended", "method", "request_bytes", "response_bytes", "started")

    def __init__(self, app_type: str, method: str) -> None:
        self.app_type = app_type
        self.method = method if method in METHODS else method_label(method)
        self.request_bytes = 0
        """How many bytes of the request's body went by so far; whoever sees them adds them."""
        self.response_bytes = 0
        self.ended = False
        self.started = perf_counter()

    def end(self, status: str, resource: str, exception: BaseException | None = None) -> None:
        """Record the exchange, unless it is recorded already.

        ``status`` and ``resource`` are as :mod:`llm_common.http_labels` writes them. ``exception`` is what ended the
        exchange, if anything did; in strict mode no fault of a backend replaces it.
        """
        if self.ended:
            return
        self.ended = True
        series = (self.method, status, resource, self.app_type)
        seconds = perf_counter() - self.started
        try:
            bound = http_bindings.get(series) or bind_http(HttpSeries(*series))
            bound.finished(seconds, self.request_bytes, self.response_bytes)
        except BaseException as fault:  # in strict mode alone
            if exception is None or stops_program(fault):
                raise


GREATEST = 2.0**63
"""Numbers from here on are no duration and no size, and not all backends could add them up."""

MOST_DIGITS = 18
"""A length with more digits than this is none."""


def declared_length(content_length: str | None) -> int | None:
    """Return what a ``Content-Length`` says, in bytes; ``None`` where it is missing or no length (RFC 9110, 8.6)."""
    text = (content_length or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def http_tracking(
    app_type: str,
    resource: str,
    method: str,
    response_size: int,
    status_code: int | str | None,
    duration: float,
    request_size: int,
    clear_resource_path: bool = True,
) -> None:
    """Record one HTTP exchange that ended, where no integration sees it.

    ``app_type`` is ``"app_api"`` for a request that the application served, and for one that it sent what it was sent
    to: ``"llm"``, ``"telegram_api"``, ``"triton"``, or a service's name with ``_api``. ``resource`` is the request's
    path; what varies in it is cleaned (see :func:`~llm_common.http_labels.path_label`), unless ``clear_resource_path``
    is false because it is a route's template already. ``status_code`` is the response's, or ``"error"``, ``"timeout"``
    or ``"cancelled"`` where there was none; ``None`` and what is no status are counted as ``error``. ``duration`` is in
    seconds; ``request_size`` and ``response_size`` are the bytes of the two bodies, 0 for none.

    Numbers that are negative or not finite are no measurement: the exchange is left out. That, and a status that is
    none, is logged once; in strict mode it raises :class:`~llm_common.errors.TrackingError`. Raises :class:`TypeError`
    where a label isn't a string and :class:`ValueError` where ``app_type`` is empty.
    """
    labels: dict[str, object] = {"app_type": app_type, "resource": resource, "method": method}
    for label, value in labels.items():
        if not isinstance(value, str):
            raise TypeError(f"{label} of an HTTP exchange must be a string, not {shown(value)}")
    checked_app_type(app_type)
    status = status_label(status_code)
    if status == ERROR and status_code is not None and not (isinstance(status_code, str) and status_code == ERROR):
        misused(
            f"http_tracking(status_code={shown(status_code)}) is no status, and is counted as error; accepted: a code "
            "of three digits, error, timeout or cancelled"
        )
    numbers: dict[str, object] = {"duration": duration, "request_size": request_size, "response_size": response_size}
    for name, number in numbers.items():
        if not isinstance(number, int | float) or not 0 <= number < GREATEST:
            misused(
                f"http_tracking({name}={shown(number)}) is no measurement; accepted: a number from 0 on, below 2**63"
            )
            return
    if clear_resource_path:
        cleaned = path_label(resource, app_type)
    else:
        template = resource.split("?", 1)[0]
        cleaned = template_label(template) if len(template) <= MAX_RESOURCE else LONG
    series = HttpSeries(method_label(method), status, cleaned, app_type)
    bound = http_bindings.get(series) or bind_http(series)
    bound.finished(duration, request_size, response_size)
