"""The backend that keeps every measurement in memory, in order, as plain data: for tests and for looking at."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
from weakref import WeakSet

from llm_common.catalog import Metric
from llm_common.contract import ActionEvent, HttpExchange, HttpSeries
from llm_common.ending import held
from llm_common.hookspecs import hookimpl
from llm_common.settings import Settings

LIMIT = 10_000
"""How many records are kept where the backend was chosen by name, in an application that may run for months."""


@dataclass(frozen=True, slots=True)
class EndedRecord:
    """One action that ended, with the label values in force."""

    event: ActionEvent
    env: str
    app: str


@dataclass(frozen=True, slots=True)
class SizedRecord:
    """One call of ``tracker.size()``, with the label values in force."""

    name: str
    amount: float
    env: str
    app: str


@dataclass(frozen=True, slots=True)
class HttpRecord:
    """One HTTP exchange that ended, with the label values in force."""

    exchange: HttpExchange
    env: str
    app: str


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One amount that a metric beside the contract was given."""

    metric: Metric
    values: tuple[str, ...]
    """Those of the metric's labels, in that order."""
    amount: float

    @property
    def env(self) -> str:
        """The label ``env``."""
        return self.values[-2]

    @property
    def app(self) -> str:
        """The label ``app``."""
        return self.values[-1]


Record = EndedRecord | SizedRecord | HttpRecord | MetricRecord


class MemoryActionRecorder:
    """The recorder of one action: it appends to the backend's records."""

    __slots__ = ("_app", "_backend", "_env", "_name")

    def __init__(self, backend: "MemoryBackend", name: str, settings: Settings) -> None:
        self._backend = backend
        self._name = name
        self._env, self._app = settings.env, settings.app

    def ended(self, event: ActionEvent) -> None:
        """Keep one ended action."""
        self._backend.add(EndedRecord(event, self._env, self._app))

    def sized(self, amount: float) -> None:
        """Keep one size."""
        self._backend.add(SizedRecord(self._name, amount, self._env, self._app))


class MemoryHttpRecorder:
    """The recorder of one HTTP series: it appends to the backend's records."""

    __slots__ = ("_app", "_backend", "_env", "_series")

    def __init__(self, backend: "MemoryBackend", series: HttpSeries, settings: Settings) -> None:
        self._backend = backend
        self._series = series
        self._env, self._app = settings.env, settings.app

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Keep one exchange."""
        exchange = HttpExchange(*self._series, request_bytes, response_bytes, seconds)
        self._backend.add(HttpRecord(exchange, self._env, self._app))


class MemoryMetricRecorder:
    """The recorder of one series of a metric beside the contract: it appends to the backend's records."""

    __slots__ = ("_backend", "_metric", "_values")

    def __init__(self, backend: "MemoryBackend", metric: Metric, values: tuple[str, ...]) -> None:
        self._backend = backend
        self._metric = metric
        self._values = values

    def record(self, amount: float) -> None:
        """Keep one amount."""
        self._backend.add(MetricRecord(self._metric, self._values, amount))


class MemoryBackend:
    """Keeps records in the order in which they came, the latest ``limit`` of them; ``None`` keeps all.

    Reading takes nothing away. :attr:`dropped` counts what fell out at the limit.
    """

    name = "memory"

    def __init__(self, limit: int | None = None) -> None:
        self.dropped = 0
        self._records: deque[Record] = deque(maxlen=limit)
        self._lock = RLock()
        _every.add(self)

    @property
    def records(self) -> Sequence[Record]:
        """Everything that was recorded and is still kept, oldest first."""
        with self._lock:
            return tuple(self._records)

    @property
    def events(self) -> Sequence[ActionEvent]:
        """The actions that ended, oldest first."""
        return tuple(record.event for record in self.records if isinstance(record, EndedRecord))

    @property
    def exchanges(self) -> Sequence[HttpExchange]:
        """The HTTP exchanges that ended, oldest first."""
        return tuple(record.exchange for record in self.records if isinstance(record, HttpRecord))

    def add(self, record: Record) -> None:
        """Keep one record."""
        with held(self._lock):
            self.dropped += len(self._records) == self._records.maxlen
            self._records.append(record)

    @hookimpl
    def llm_common_bind_action(self, name: str, settings: Settings) -> MemoryActionRecorder:
        """Return a recorder with the label values of ``settings``."""
        return MemoryActionRecorder(self, name, settings)

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries, settings: Settings) -> MemoryHttpRecorder:
        """Return a recorder with the label values of ``settings``."""
        return MemoryHttpRecorder(self, series, settings)

    @hookimpl
    def llm_common_bind_metric(self, metric: Metric, values: tuple[str, ...]) -> MemoryMetricRecorder:
        """Return a recorder of the metric's series."""
        return MemoryMetricRecorder(self, metric, values)


_every: WeakSet[MemoryBackend] = WeakSet()


def _after_fork_in_child() -> None:
    for backend in _every:
        backend._lock = RLock()  # the thread that held it in the parent does not exist here


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


@hookimpl
def llm_common_create_backend(name: str, settings: Settings) -> MemoryBackend | None:
    """Create the backend ``memory`` with a limit."""
    return MemoryBackend(LIMIT) if name == "memory" else None
