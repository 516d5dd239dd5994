"""One backend under test: what it is given is also written down, so that what it shows can be compared with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import local
from typing import Any
from unittest.mock import patch

from prometheus_client.metrics_core import Metric as Family

from llm_common.backends.memory import EndedRecord, HttpRecord, MetricRecord, Record, SizedRecord
from llm_common.catalog import Metric
from llm_common.contract import ActionEvent, HttpExchange, HttpSeries, Status
from llm_common.dispatch import bind_http, configure
from llm_common.settings import Settings, clean_label
from llm_common.testing.conformance.comparison import check_shown
from llm_common.testing.families import families
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking


class Clock(local):
    """The clock of actions, one for each thread: it goes on only when a test says so, so that durations are exact."""

    now = 0.0
    """In seconds."""

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Let actions read a :class:`Clock` for the length of a ``with`` block."""
    clock = Clock()
    with patch("llm_common.tracker.perf_counter", clock):
        yield clock


class Session:
    """A backend that is configured, and all that it was given so far."""

    def __init__(self, backend: object, read: Callable[[], Iterable[Family]], clock: Clock, **changes: Any) -> None:
        self.backend = backend
        self.clock = clock
        self.records: list[Record] = []
        self._read = read
        self.settings = self.configure(**changes)

    def configure(
        self, *, app: str = "shop_bot", env: str = "dev", others: Sequence[object] = (), **changes: Any
    ) -> Settings:
        """Configure the backend, first among ``others``, in strict mode."""
        backends = [self.backend, *others]
        self.settings = configure(app=app, env=env, backends=backends, strict=True, **changes)
        return self.settings

    def act(
        self, name: str, status: Status = Status.OK, seconds: float = 0.0, sizes: Sequence[float] = (), times: int = 1
    ) -> None:
        """Track actions that end with ``status`` after ``seconds``, and write them down."""
        for _ in range(times):
            self.clock.now = 0.0
            with suppress(ArithmeticError, GeneratorExit), action_tracking(name) as tracker:
                for amount in sizes:
                    tracker.size(amount)
                self.end(tracker, status, seconds)
        self.expect_action(name, status, seconds, sizes, times)

    def end(self, tracker: ActionTracker, status: Status, seconds: float) -> None:
        """Let ``seconds`` go by in a block, and leave it so that it ends with ``status``."""
        self.clock.now += seconds
        if status is Status.CANCELLED:
            raise GeneratorExit
        if status is Status.ERROR:
            raise ArithmeticError

    def expect_action(
        self,
        name: str,
        status: Status = Status.OK,
        seconds: float = 0.0,
        sizes: Sequence[float] = (),
        times: int = 1,
        settings: Settings | None = None,
    ) -> None:
        """Write down actions that the backend is given otherwise."""
        common = (settings or self.settings).env, (settings or self.settings).app
        label = clean_label(name)
        event = EndedRecord(ActionEvent(label, status, sum(sizes) if sizes else None, seconds), *common)
        for _ in range(times):
            self.records += [SizedRecord(label, amount, *common) for amount in sizes]
            self.records.append(event)

    def exchange(
        self, series: HttpSeries, seconds: float = 0.0, request_bytes: int = 0, response_bytes: int = 0, times: int = 1
    ) -> None:
        """Record HTTP exchanges, and write them down. The labels reach the backend as they are."""
        for _ in range(times):
            bind_http(series).finished(seconds, request_bytes, response_bytes)
        self.expect_exchange(series, seconds, request_bytes, response_bytes, times)

    def expect_exchange(
        self, series: HttpSeries, seconds: float = 0.0, request_bytes: int = 0, response_bytes: int = 0, times: int = 1
    ) -> None:
        """Write down HTTP exchanges that the backend is given otherwise."""
        method, status, resource, app_type = map(clean_label, series)
        exchange = HttpExchange(method, status, resource, app_type, request_bytes, response_bytes, seconds)
        self.records += [HttpRecord(exchange, self.settings.env, self.settings.app)] * times

    def expect_metric(self, metric: Metric, amount: float, *labels: str) -> None:
        """Write down what a metric beside the contract is given; ``labels`` are its values but for env and app."""
        self.records.append(MetricRecord(metric, (*labels, self.settings.env, self.settings.app), amount))

    def check(self, when: str = "") -> None:
        """Raise :class:`AssertionError` unless the backend shows exactly what it was given."""
        buckets = self.settings.buckets
        check_shown(self._read(), families(self.records, buckets), buckets, when)
