"""The backend: recorders that know their instruments and attributes, and hand measurements over."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from opentelemetry.metrics import MeterProvider

from llm_common import hookimpl
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    Metric,
)
from llm_common.contract import HttpSeries, Status
from llm_common.settings import Settings
from llm_common_opentelemetry.handover import Attributes, Record, handover
from llm_common_opentelemetry.instruments import Instruments, instruments_of


class OpenTelemetryActionRecorder:
    """The recorder of one action."""

    __slots__ = ("_attributes", "_by_status", "_count", "_duration", "_size")

    def __init__(self, instruments: Instruments, name: str, env: str, app: str) -> None:
        labels = {"name": name, "env": env, "app": app}
        self._attributes = chosen(labels, ACTION_DURATION.labels)
        self._by_status = {status: chosen({**labels, "status": status.value}, ACTION_COUNT.labels) for status in Status}
        self._count, self._duration, self._size = on(instruments, ACTION_COUNT, ACTION_DURATION, ACTION_SIZE)

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        handover.add((self._count, 1, self._by_status[status]), (self._duration, seconds, self._attributes))

    def sized(self, amount: float) -> None:
        """Add to the action's size. It is a floating point number, since OTLP has no whole ones past 64 bits."""
        handover.add((self._size, float(amount), self._attributes))


class OpenTelemetryHttpRecorder:
    """The recorder of one HTTP series."""

    __slots__ = ("_attributes", "_duration", "_in", "_out", "_requests", "_size")

    def __init__(self, instruments: Instruments, series: HttpSeries, env: str, app: str) -> None:
        labels = {**series._asdict(), "env": env, "app": app}
        self._attributes = chosen(labels, HTTP_REQUESTS.labels)
        self._in = chosen({**labels, "direction": "in"}, HTTP_REQUEST_SIZE.labels)
        self._out = chosen({**labels, "direction": "out"}, HTTP_REQUEST_SIZE.labels)
        self._requests, self._duration, self._size = on(
            instruments, HTTP_REQUESTS, HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE
        )

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Count one exchange."""
        handover.add(
            (self._requests, 1, self._attributes),
            (self._duration, seconds, self._attributes),
            (self._size, request_bytes, self._in),
            (self._size, response_bytes, self._out),
        )


class OpenTelemetryMetricRecorder:
    """The recorder of one series of a metric beside the contract."""

    __slots__ = ("_attributes", "_instrument")

    def __init__(self, instruments: Instruments, metric: Metric, values: tuple[str, ...]) -> None:
        (self._instrument,) = on(instruments, metric)
        self._attributes = dict(zip(metric.labels, values, strict=True))

    def record(self, amount: float) -> None:
        """Add to a counter or gauge, or observe in a histogram."""
        handover.add((self._instrument, amount, self._attributes))


def on(instruments: Instruments, *metrics: Metric) -> list[Callable[[], Record]]:
    """Return for each metric what looks up its instrument, when a measurement is handed over."""
    return [partial(instruments.record, metric) for metric in metrics]


def chosen(labels: Attributes, names: tuple[str, ...]) -> Attributes:
    """Return the labels that a metric has, in its order."""
    return {name: labels[name] for name in names}


class OpenTelemetryBackend:
    """Records on a ``MeterProvider``; ``None`` stands for the global one, whenever the application sets it.

    What OpenTelemetry does with the measurements (readers, views, temporality, exemplars) is the application's choice.
    """

    name = "opentelemetry"

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._given = meter_provider
        self._instruments = instruments_of(meter_provider)

    @property
    def meter_provider(self) -> MeterProvider:
        """The provider that is recorded on."""
        return self._instruments.provider

    @hookimpl
    def llm_common_configured(self, settings: Settings) -> None:
        """Join the provider, and refuse bounds that its instruments can't take any more."""
        self._instruments.check(settings.buckets)
        self._instruments.attach()

    @hookimpl
    def llm_common_bind_action(self, name: str, settings: Settings) -> OpenTelemetryActionRecorder:
        """Return the recorder of an action's series."""
        labels = name, settings.env, settings.app
        return self._instruments.recorder(
            labels, settings.buckets, lambda: OpenTelemetryActionRecorder(self._instruments, *labels)
        )

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries, settings: Settings) -> OpenTelemetryHttpRecorder:
        """Return the recorder of an HTTP series."""
        labels = series, settings.env, settings.app
        return self._instruments.recorder(
            labels, settings.buckets, lambda: OpenTelemetryHttpRecorder(self._instruments, *labels)
        )

    @hookimpl
    def llm_common_bind_metric(
        self, metric: Metric, values: tuple[str, ...], settings: Settings
    ) -> OpenTelemetryMetricRecorder:
        """Return the recorder of a series of a metric beside the contract."""
        return self._instruments.recorder(
            (metric, values), settings.buckets, lambda: OpenTelemetryMetricRecorder(self._instruments, metric, values)
        )

    @hookimpl
    def llm_common_shutdown(self, timeout: float) -> None:
        """Hand over what is pending. When it is exported is up to the provider, which the application shuts down.

        Raises :class:`TimeoutError` where that takes longer than ``timeout`` seconds. While the interpreter exits, the
        provider's last collection takes what is pending.
        """
        with suppress(RuntimeError):
            if not handover.finish(timeout):
                raise TimeoutError(f"OpenTelemetry has not taken all measurements within {timeout} seconds")
