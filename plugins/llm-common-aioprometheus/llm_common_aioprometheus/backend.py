"""The backend: what it is given is counted by llm_common, exactly and without locks, and shown by aioprometheus.

aioprometheus' own metrics read a value, add to it and write it back, without a lock: threads lose counts. So nothing is
counted in them; the collectors that stand in the registry look at the totals when a scrape comes.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from threading import RLock
from typing import Any

from aioprometheus.collectors import REGISTRY, Registry
from prometheus_client.metrics_core import Metric as Family

from llm_common import hookimpl
from llm_common.backends.action_series import ActionSeries
from llm_common.backends.extra_series import ExtraSeries
from llm_common.backends.http_series import HttpBatch
from llm_common.backends.store import BatchedStore
from llm_common.catalog import METRICS, Buckets, Kind, Metric
from llm_common.contract import HttpSeries
from llm_common.errors import ConfigurationError
from llm_common.settings import Settings
from llm_common_aioprometheus.collectors import CountedBy, StoredCounter, StoredGauge, StoredHistogram

_lock = RLock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = RLock()  # the thread that held it in the parent does not exist here


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


class AioprometheusBackend:
    """Shows the documented series in an aioprometheus ``Registry``; ``None`` stands for the default one.

    What was counted belongs to the registry and not to a configuration: after another ``configure()`` the counters go
    on from where they were.
    """

    name = "aioprometheus"

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry: Registry = REGISTRY if registry is None else registry

    @hookimpl
    def llm_common_configured(self, settings: Settings) -> None:
        """Join the registry at once, so that what is wrong with it shows at ``configure()``."""
        store_of(self.registry, settings.buckets)

    @hookimpl
    def llm_common_bind_action(self, name: str, settings: Settings) -> ActionSeries:
        """Return the recorder of an action's series."""
        return store_of(self.registry, settings.buckets).action(name, settings.env, settings.app)

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries, settings: Settings) -> HttpBatch:
        """Return the recorder of an HTTP series."""
        return store_of(self.registry, settings.buckets).http(series, settings.env, settings.app)

    @hookimpl
    def llm_common_bind_metric(self, metric: Metric, values: tuple[str, ...], settings: Settings) -> ExtraSeries:
        """Return the recorder of a series of a metric beside the contract, which joins the registry with the first."""
        store = store_of(self.registry, settings.buckets)
        if metric.name not in self.registry.collectors:
            _show(metric, store, self.registry)
        return store.metric(metric, values)

    def collect(self) -> Iterator[Family]:
        """Yield the documented families, for the endpoints of ``llm_common.prometheus``."""
        store = _store_in(self.registry)
        return store.collect() if store else iter(())


def store_of(registry: Registry, buckets: Buckets) -> BatchedStore:
    """Return what counts for ``registry``, made on first use together with the collectors that show it.

    Raises :class:`~llm_common.errors.ConfigurationError` where the registry has metrics of these names from elsewhere,
    and where other bucket bounds are in use already.
    """
    found = _store_in(registry)
    if found and found.buckets == buckets:
        return found  # without the lock, so that a signal handler may bind while it is held
    with _lock:
        store = _store_in(registry)
        if store is None or store.buckets != buckets:  # pragma: no branch - else another thread was faster
            if store:
                _withdraw(registry, store, buckets)
            store = _join(registry, buckets)
        return store


def _store_in(registry: Registry) -> BatchedStore | None:
    """Return what counts for ``registry`` already; its collectors tell, so that ``registry.clear()`` begins anew."""
    collectors = [registry.collectors.get(metric.name) for metric in METRICS]
    stores = {id(one.store): one.store for one in collectors if isinstance(one, CountedBy)}
    return next(iter(stores.values())) if len(stores) == 1 and None not in collectors else None


def _withdraw(registry: Registry, store: BatchedStore, buckets: Buckets) -> None:
    if not store.empty:
        raise ConfigurationError(
            f"{store.buckets.change(buckets)}: values were recorded already. Call configure() before the first action "
            "and the first request, or give the backend a registry of its own"
        )
    for metric in METRICS:  # of the others there are none yet
        registry.deregister(metric.name)


def _join(registry: Registry, buckets: Buckets) -> BatchedStore:
    taken = [metric.name for metric in METRICS if metric.name in registry.collectors]
    if taken:
        raise ConfigurationError(
            f"the aioprometheus registry already has {', '.join(taken)}. Remove the older definitions, or give the "
            "backend a registry of its own: configure(backends=[AioprometheusBackend(registry)])"
        )
    store = BatchedStore(buckets)
    for metric in METRICS:
        _show(metric, store, registry)
    return store


def _show(metric: Metric, store: BatchedStore, registry: Registry) -> None:
    kinds: dict[Kind, type[Any]] = {
        Kind.COUNTER: StoredCounter,
        Kind.GAUGE: StoredGauge,
        Kind.HISTOGRAM: StoredHistogram,
    }
    with suppress(ValueError):  # another thread was faster
        kinds[metric.kind](metric, store, registry)
