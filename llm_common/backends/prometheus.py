"""The Prometheus backend: the documented series in a prometheus_client registry.

Whatever already serves that registry (by default the library's global one) shows them. What was counted belongs to the
registry and not to a configuration: after another ``configure()`` the counters go on from where they were.
"""

import atexit
import os
from threading import Lock
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, values

from llm_common.backends import folding
from llm_common.backends.action_series import ActionSeries, TracedActionRecorder
from llm_common.backends.extra_series import ExtraSeries
from llm_common.backends.http_series import HttpBatch, TracedHttpRecorder
from llm_common.backends.multiprocess import (
    MultiprocessActionRecorder,
    MultiprocessExtraRecorder,
    MultiprocessHttpRecorder,
    MultiprocessStore,
)
from llm_common.backends.store import BatchedStore
from llm_common.catalog import Buckets, Metric
from llm_common.contract import ExemplarSource, HttpSeries
from llm_common.errors import ConfigurationError
from llm_common.hookspecs import hookimpl
from llm_common.settings import Settings

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"

Store = BatchedStore | MultiprocessStore

_stores: WeakKeyDictionary[CollectorRegistry, Store] = WeakKeyDictionary()
_shared: list[MultiprocessStore] = []  # at most one: every registry of a process writes to the same files
_lock = Lock()


def multiprocess() -> bool:
    """Return whether values go to the files below ``PROMETHEUS_MULTIPROC_DIR``.

    prometheus_client decides that once, by the environment at the moment when it is first imported.
    """
    return bool(getattr(values.ValueClass, "_multiprocess", False))


class PrometheusBackend:
    """Records into a registry; ``None`` stands for prometheus_client's global one.

    To use another: ``configure(backends=[PrometheusBackend(registry)])``.
    """

    name = "prometheus"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry: CollectorRegistry = REGISTRY if registry is None else registry

    @hookimpl
    def llm_common_configured(self, settings: Settings) -> None:
        """Join the registry at once, so that what is wrong with it shows at ``configure()``."""
        store_of(self.registry, settings.buckets)

    @hookimpl
    def llm_common_bind_action(
        self, name: str, settings: Settings, exemplar: ExemplarSource | None
    ) -> ActionSeries | TracedActionRecorder | MultiprocessActionRecorder:
        """Return the recorder of an action's series."""
        store = store_of(self.registry, settings.buckets)
        if exemplar and isinstance(store, BatchedStore):  # the files of several processes have no place for exemplars
            return store.traced_action(name, settings.env, settings.app, exemplar)
        return store.action(name, settings.env, settings.app)

    @hookimpl
    def llm_common_bind_http(
        self, series: HttpSeries, settings: Settings, exemplar: ExemplarSource | None
    ) -> HttpBatch | TracedHttpRecorder | MultiprocessHttpRecorder:
        """Return the recorder of an HTTP series."""
        store = store_of(self.registry, settings.buckets)
        if exemplar and isinstance(store, BatchedStore):
            return store.traced_http(series, settings.env, settings.app, exemplar)
        return store.http(series, settings.env, settings.app)

    @hookimpl
    def llm_common_bind_metric(
        self, metric: Metric, values: tuple[str, ...], settings: Settings
    ) -> ExtraSeries | MultiprocessExtraRecorder:
        """Return the recorder of a series of a metric beside the contract."""
        return store_of(self.registry, settings.buckets).metric(metric, values)


@hookimpl
def llm_common_create_backend(name: str, settings: Settings) -> PrometheusBackend | None:
    """Create the backend ``prometheus`` on the global registry."""
    return PrometheusBackend() if name == "prometheus" else None


def store_of(registry: CollectorRegistry, buckets: Buckets) -> Store:
    """Return the store whose series ``registry`` shows, made on first use.

    Raises :class:`ConfigurationError` where the registry has metrics of these names from elsewhere, where other bucket
    bounds are in use already, and where the directory for several processes is missing.
    """
    found = _stores.get(registry)
    if found is not None and found.buckets == buckets:
        return found  # without the lock, so that a signal handler may bind while it is held
    with _lock:
        store = _stores.get(registry)
        if store is not None and store.buckets != buckets:
            if not store.empty:
                raise ConfigurationError(
                    f"{store.buckets.change(buckets)}: values were recorded already. Call configure() before the "
                    "first action and the first request, or give the backend a registry of its own"
                )
            registry.unregister(store)
            _shared.clear()
            store = None
        if store is None:  # pragma: no branch - else another thread was faster
            store = _new_store(buckets)
            try:
                registry.register(store)
            except ValueError as problem:
                raise ConfigurationError(
                    f"the registry already has metrics of the same name: {problem}. Remove the older definitions, "
                    "or give the backend a registry of its own: configure(backends=[PrometheusBackend(registry)])"
                ) from problem
            _stores[registry] = store
        return store


def _new_store(buckets: Buckets) -> Store:
    if not multiprocess():
        return BatchedStore(buckets)
    directory = os.environ.get(MULTIPROC_DIR, "")
    if not os.path.isdir(directory):
        raise ConfigurationError(
            f"the environment variable {MULTIPROC_DIR} is {directory!r}, which is no directory; "
            "create it, empty, before the processes start"
        )
    if not _shared:
        _shared.append(MultiprocessStore(buckets, directory))
    return _shared[0]


@atexit.register
def _at_exit() -> None:
    for store in _shared:
        store.at_exit()


def _after_fork_in_child() -> None:
    global _lock
    _lock = Lock()
    folding.after_fork_in_child()
    for store in _shared:
        store.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)
