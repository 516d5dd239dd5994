"""The instruments on a provider: one for each metric of the catalogue, with its name as it stands on a scrape.

They are made when the first measurement is handed over, and never by a thread that measures, since OpenTelemetry makes
them under its locks.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import TypeVar
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import Meter, MeterProvider, get_meter_provider

from llm_common.catalog import Buckets, Kind, Metric
from llm_common.errors import ConfigurationError
from llm_common_opentelemetry.handover import Record, handover, start

SCOPE = "llm_common"
"""The instrumentation scope of all instruments."""

VERSION = version("llm-common-opentelemetry")

PATIENCE = 1.0
"""How long, in seconds, ``configure()`` waits for the provider. It is slow only if a signal handler interrupted it."""

Recorder = TypeVar("Recorder")


class Instruments:
    """The instruments on one provider, and the recorders that measure with them; ``None`` is the global provider.

    They have no unit: exporters to Prometheus append it to the name, and the names are a contract. The bounds of
    buckets are given as advice, so that a view of the application overrules them.
    """

    def __init__(self, provider: MeterProvider | None) -> None:
        self._provider = None if provider is None else ref(provider)  # a backend that is in use keeps it alive
        self._meter: Meter | None = None
        self._buckets: Buckets | None = None
        self._records: dict[str, Record] = {}
        self._recorders: dict[object, object] = {}

    @property
    def provider(self) -> MeterProvider:
        """The provider that is recorded on."""
        given = self._provider() if self._provider else None
        return get_meter_provider() if given is None else given

    def attach(self) -> None:
        """Let every reader of the provider call for what is pending, before it collects. Done once, elsewhere."""
        if self._meter is None:
            with suppress(RuntimeError):  # while the interpreter exits
                start(self._attach).acquire(timeout=PATIENCE)

    def _attach(self) -> None:  # pragma: no cover - such a thread can't be measured
        meter = self.provider.get_meter(SCOPE, VERSION)
        meter.create_observable_counter(
            "llm_common.handover", [handover.on_collection], description="Observes nothing: its callback hands over."
        )
        self._meter = meter

    def check(self, buckets: Buckets) -> None:
        """Raise :class:`~llm_common.errors.ConfigurationError` where other bounds are in use already."""
        if self._buckets is not None and self._buckets != buckets:
            raise ConfigurationError(
                f"{self._buckets.change(buckets)}: the MeterProvider has instruments with those already. Call "
                "configure() before the first action and the first request, or change the bounds by a view of the "
                "MeterProvider"
            )

    def recorder(self, key: object, buckets: Buckets, make: Callable[[], Recorder]) -> Recorder:
        """Return the recorder for ``key``, always the same, made by ``make``; the bounds are ``buckets`` from now on.

        Raises :class:`~llm_common.errors.ConfigurationError` where other bounds are in use already.
        """
        self.check(buckets)
        self._buckets = buckets
        found = self._recorders.get(key)
        return self._recorders.setdefault(key, make()) if found is None else found  # type: ignore[return-value]

    def record(self, metric: Metric) -> Record:
        """Return what records on the instrument of ``metric``. Only who hands over may call it."""
        found = self._records.get(metric.name)
        if found is None:
            found = self._records[metric.name] = self._instrument(metric)
        return found

    def _instrument(self, metric: Metric) -> Record:
        if self._meter is None:  # the provider was too slow, or there was no thread
            self._meter = self.provider.get_meter(SCOPE, VERSION)
        if metric.kind is Kind.COUNTER:
            return self._meter.create_counter(metric.name, description=metric.help).add
        if metric.kind is Kind.GAUGE:
            return self._meter.create_up_down_counter(metric.name, description=metric.help).add
        bounds = (self._buckets or Buckets()).of(metric)
        return self._meter.create_histogram(
            metric.name, description=metric.help, explicit_bucket_boundaries_advisory=bounds
        ).record


_of_global = Instruments(None)
_of_others: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def instruments_of(provider: MeterProvider | None) -> Instruments:
    """Return the instruments on ``provider``, always the same; ``None`` stands for the global one.

    OpenTelemetry's instruments on the global provider follow when the application sets it, however late.
    """
    if provider is None:
        return _of_global
    found = _of_others.get(provider)
    return _of_others.setdefault(provider, Instruments(provider)) if found is None else found
