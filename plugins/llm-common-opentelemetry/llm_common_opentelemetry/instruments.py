"""The instruments: one for each metric of the catalogue, with its name as it stands on a scrape."""

from importlib.metadata import version
from threading import RLock
from weakref import WeakKeyDictionary

from opentelemetry.metrics import Counter, Histogram, MeterProvider

from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    Buckets,
    Metric,
)
from llm_common.errors import ConfigurationError
from llm_common_opentelemetry.handover import handover

SCOPE = "llm_common"
"""The instrumentation scope of all instruments."""


class Instruments:
    """The instruments on one provider.

    They have no unit: exporters to Prometheus append it to the name, and the names are a contract. The bounds of
    buckets are given as advice, so that a view of the application overrules them.
    """

    def __init__(self, provider: MeterProvider, buckets: Buckets) -> None:
        meter = provider.get_meter(SCOPE, version("llm-common-opentelemetry"))
        self.buckets = buckets

        def counter(metric: Metric) -> Counter:
            return meter.create_counter(metric.name, description=metric.help)

        def histogram(metric: Metric, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                metric.name, description=metric.help, explicit_bucket_boundaries_advisory=bounds
            )

        self.http_requests = counter(HTTP_REQUESTS)
        self.http_duration = histogram(HTTP_REQUEST_DURATION, buckets.http_duration)
        self.http_size = histogram(HTTP_REQUEST_SIZE, buckets.http_size)
        self.action_count = counter(ACTION_COUNT)
        self.action_duration = histogram(ACTION_DURATION, buckets.action_duration)
        self.action_size = counter(ACTION_SIZE)
        meter.create_observable_counter(
            "llm_common.handover", [handover.collected], description="Never observed: its callback hands over."
        )


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
