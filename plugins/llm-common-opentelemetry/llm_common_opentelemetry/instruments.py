"""The instruments: one for each metric of the catalogue, with its name as it stands on a scrape."""

from importlib.metadata import version
from threading import RLock
from weakref import WeakKeyDictionary

from opentelemetry.metrics import MeterProvider

from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    Buckets,
    Kind,
    Metric,
)
from llm_common.errors import ConfigurationError
from llm_common_opentelemetry.handover import Record, handover

SCOPE = "llm_common"
"""The instrumentation scope of all instruments."""


class Instruments:
    """The instruments on one provider.

    They have no unit: exporters to Prometheus append it to the name, and the names are a contract. The bounds of
    buckets are given as advice, so that a view of the application overrules them.
    """

    def __init__(self, provider: MeterProvider, buckets: Buckets) -> None:
        self._meter = provider.get_meter(SCOPE, version("llm-common-opentelemetry"))
        self.buckets = buckets
        self._made: dict[str, Record] = {}
        self.http_requests = self.record(HTTP_REQUESTS)
        self.http_duration = self.record(HTTP_REQUEST_DURATION)
        self.http_size = self.record(HTTP_REQUEST_SIZE)
        self.action_count = self.record(ACTION_COUNT)
        self.action_duration = self.record(ACTION_DURATION)
        self.action_size = self.record(ACTION_SIZE)
        self._meter.create_observable_counter(
            "llm_common.handover", [handover.collected], description="Never observed: its callback hands over."
        )

    def record(self, metric: Metric) -> Record:
        """Return what records on the instrument of ``metric``, which is made on first use."""
        found = self._made.get(metric.name)
        return found or self._made.setdefault(metric.name, self._instrument(metric))

    def _instrument(self, metric: Metric) -> Record:
        if metric.kind is Kind.COUNTER:
            return self._meter.create_counter(metric.name, description=metric.help).add
        if metric.kind is Kind.GAUGE:
            return self._meter.create_up_down_counter(metric.name, description=metric.help).add
        return self._meter.create_histogram(
            metric.name, description=metric.help, explicit_bucket_boundaries_advisory=self.buckets.of(metric)
        ).record


_made: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()
_lock = RLock()


def instruments_of(provider: MeterProvider, buckets: Buckets) -> Instruments:
    """Return the instruments on ``provider``, made on first use.

    Raises :class:`~llm_common.errors.ConfigurationError` where they have other bucket bounds already.
    """
    check_bounds(provider, buckets)
    found = _made.get(provider)
    if found is None:
        with _lock:
            found = _made.get(provider) or _made.setdefault(provider, Instruments(provider, buckets))
    return found


def check_bounds(provider: MeterProvider, buckets: Buckets) -> None:
    """Raise :class:`~llm_common.errors.ConfigurationError` where ``provider`` has instruments with other bounds."""
    found = _made.get(provider)
    if found is not None and found.buckets != buckets:
        raise ConfigurationError(
            f"{found.buckets.change(buckets)}: the MeterProvider has instruments with those already. Call configure() "
            "before the first action and the first request, or change the bounds by a view of the MeterProvider"
        )
