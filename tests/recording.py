"""Backends that tests switch in: one that keeps what it is told, one that fails where it is told to."""

from typing import Any

from llm_common import hookimpl
from llm_common.contract import HttpSeries, Status


class Recorder:
    def __init__(self, backend: "ListBackend", name: str) -> None:
        self.backend = backend
        self.action = name

    def finished(self, status: Status, seconds: float) -> None:
        self.backend.calls.append((self.action, str(status)))
        self.backend.seconds.append(seconds)

    def sized(self, amount: float) -> None:
        self.backend.calls.append((self.action, amount))


class HttpListRecorder:
    def __init__(self, backend: "ListBackend", series: HttpSeries) -> None:
        self.backend = backend
        self.series = series

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        self.backend.fail("http")
        self.backend.http.append((self.series, request_bytes, response_bytes))


class ListBackend:
    def __init__(self, name: str = "list") -> None:
        self.name = name
        self.calls: list[tuple[str, Any]] = []
        self.seconds: list[float] = []
        self.bound: list[str] = []
        self.configured: list[Any] = []
        self.shutdowns: list[float] = []
        self.http: list[tuple[HttpSeries, int, int]] = []
        self.bound_http: list[HttpSeries] = []

    def fail(self, operation: str) -> None:
        pass

    @hookimpl
    def llm_common_bind_action(self, name: str) -> Recorder:
        self.bound.append(name)
        return Recorder(self, name)

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries) -> HttpListRecorder:
        self.fail("bind_http")
        self.bound_http.append(series)
        return HttpListRecorder(self, series)

    @hookimpl
    def llm_common_configured(self, settings: Any) -> None:
        self.configured.append(settings)

    @hookimpl
    def llm_common_shutdown(self, timeout: float) -> None:
        self.shutdowns.append(timeout)


class FaultyBackend(ListBackend):
    """Raises in each of the operations named in ``broken``."""

    def __init__(self, *broken: str) -> None:
        super().__init__("faulty")
        self.broken = broken

    def fail(self, operation: str) -> None:
        if operation in self.broken:
            raise OSError(f"{operation} is broken")

    @hookimpl
    def llm_common_bind_action(self, name: str) -> Recorder:
        self.fail("bind")
        return FaultyRecorder(self, name)

    @hookimpl
    def llm_common_shutdown(self, timeout: float) -> None:
        self.fail("shutdown")


class FaultyRecorder(Recorder):
    backend: FaultyBackend

    def finished(self, status: Status, seconds: float) -> None:
        self.backend.fail("finished")
        super().finished(status, seconds)

    def sized(self, amount: float) -> None:
        self.backend.fail("sized")
        super().sized(amount)
