"""The values of the Prometheus backend with several processes: written through to mapped files.

With ``PROMETHEUS_MULTIPROC_DIR`` set, every measurement goes straight into files of this process, so that a worker that
is killed loses nothing, and any process can serve the sum. The files are prometheus_client's own kind, which its
``MultiProcessCollector`` reads; but they are separate ones, so that an action takes the lock once and not three times,
and none of its checks for a fork: the interpreter says when one happened.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from math import inf
from threading import RLock
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.samples import Sample

from llm_common.backends.rendering import go_number
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE, METRICS, Metric
from llm_common.contract import Status


class MappedValue:
    """One line of the scrape, kept in a file. Whoever changes it holds the store's lock."""

    __slots__ = ("key", "metric", "total", "write")

    def __init__(self, store: "MultiprocessActionStore", metric: Metric, key: str) -> None:
        self.metric = metric
        self.key = key
        self.open(store)

    def open(self, store: "MultiprocessActionStore") -> None:
        """Begin with what the file of this process has, which is nothing unless a process had the same number."""
        file = store.file(self.metric)
        self.total: float = file.read_value(self.key)[0]  # type: ignore[no-untyped-call]
        self.write: Callable[[str, float, float], None] = file.write_value


class MultiprocessActionRecorder:
    """The recorder of one action: a value for each line, made when the line first counts something."""

    __slots__ = ("_bounds", "_buckets", "_counts", "_labels", "_seconds", "_size", "_store")

    def __init__(self, store: "MultiprocessActionStore", name: str, env: str, app: str) -> None:
        self._labels = (name, env, app)
        self._store = store
        self._bounds = store.bounds
        self._counts: dict[Status, MappedValue] = {}
        self._buckets: list[MappedValue] = []
        self._seconds: MappedValue | None = None
        self._size: MappedValue | None = None

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        self._store.write(self._finish, status, seconds)

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        self._store.write(self._add, amount)

    def _finish(self, status: Status, seconds: float) -> None:
        total = self._seconds
        if total is None or status not in self._counts:
            total = self._begin(status)
        count = self._counts[status]
        bucket = self._buckets[bisect_left(self._bounds, seconds)]
        count.total += 1.0
        total.total += seconds
        bucket.total += 1.0
        count.write(count.key, count.total, 0.0)
        total.write(total.key, total.total, 0.0)
        bucket.write(bucket.key, bucket.total, 0.0)

    def _add(self, amount: float) -> None:
        size = self._size
        if size is None:
            size = self._size = self._store.value(ACTION_SIZE, "_total", self._labels)
        size.total += amount
        size.write(size.key, size.total, 0.0)

    def _begin(self, status: Status) -> MappedValue:
        name, env, app = self._labels
        if self._seconds is None:
            self._buckets = [
                self._store.value(ACTION_DURATION, "_bucket", (*self._labels, go_number(bound)), "le")
                for bound in (*self._bounds, inf)
            ]
            self._seconds = self._store.value(ACTION_DURATION, "_sum", self._labels)
        self._counts[status] = self._store.value(ACTION_COUNT, "_total", (name, status.value, env, app))
        return self._seconds

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """Yield every sample of this process, with the metric that it belongs to."""
        labels = dict(zip(ACTION_DURATION.labels, self._labels, strict=True))
        for status, count in list(self._counts.items()):
            yield ACTION_COUNT, Sample(ACTION_COUNT.name, {**labels, "status": status.value}, count.total)
        if self._seconds is not None:
            cumulative = list(accumulate(bucket.total for bucket in self._buckets))
            for bound, upto in zip((*self._bounds, inf), cumulative, strict=True):
                le = {**labels, "le": go_number(bound)}
                yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_bucket", le, upto)
            yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_count", labels, cumulative[-1])
            yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_sum", labels, self._seconds.total)
        if self._size is not None:
            yield ACTION_SIZE, Sample(ACTION_SIZE.name, labels, self._size.total)


class MultiprocessActionStore:
    """The action metrics of this process. One for all registries, since they share the same files."""

    def __init__(self, bounds: tuple[float, ...], directory: str) -> None:
        self.bounds = bounds
        self._lock = RLock()  # re-entrant, so that a signal handler that tracks can't deadlock
        self._writing = False
        self._interruptions: list[Callable[[], None]] = []
        """What was tracked in the middle of a write by the same thread; written right after it."""
        self._directory = directory
        self._files: dict[str, MmapedDict] = {}
        self._values: list[MappedValue] = []
        self._recorders: dict[tuple[str, str, str], MultiprocessActionRecorder] = {}

    @property
    def empty(self) -> bool:
        """Whether no action was ever bound, so that the bounds can still change."""
        return not self._recorders

    def action(self, name: str, env: str, app: str) -> MultiprocessActionRecorder:
        """Return the recorder of an action, always the same for the same labels."""
        key = (name, env, app)
        found = self._recorders.get(key)
        return found or self._recorders.setdefault(key, MultiprocessActionRecorder(self, name, env, app))

    def write(self, change: Callable[..., None], *arguments: Any) -> None:
        """Call ``change(*arguments)``, which writes values, while nothing else in this process does."""
        with self._lock:
            if self._writing:  # this very thread was interrupted, by a signal handler or a __del__ that tracks
                self._interruptions.append(partial(change, *arguments))
                return
            self._writing = True
            try:
                change(*arguments)
                while self._interruptions:
                    self._interruptions.pop(0)()
            finally:
                self._writing = False

    def file(self, metric: Metric) -> MmapedDict:
        """Return the file of this process for such metrics, by whose name prometheus_client knows their type."""
        kind = metric.kind.value
        if kind not in self._files:
            path = os.path.join(self._directory, f"{kind}_llm_common_{os.getpid()}.db")
            self._files[kind] = MmapedDict(path)  # type: ignore[no-untyped-call]
        return self._files[kind]

    def value(self, metric: Metric, suffix: str, labels: tuple[str, ...], *more: str) -> MappedValue:
        """Return the value for one line of the scrape. The lock is held."""
        names = [*metric.labels, *more]
        key = mmap_key(metric.family, metric.family + suffix, names, list(labels), metric.help)
        value = MappedValue(self, metric, key)
        self._values.append(value)
        return value

    def after_fork(self) -> None:
        """Turn to files of its own, in a child process; what the parent counted stays in the parent's."""
        self._lock = RLock()
        self._writing = False
        self._interruptions.clear()
        self._files = {}
        for value in self._values:
            value.open(self)

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        for metric in (ACTION_COUNT, ACTION_DURATION, ACTION_SIZE):
            yield Family(metric.family, metric.help, metric.kind.value)

    def collect(self) -> Iterator[Family]:
        """Yield what this process alone has counted, for endpoints that don't sum over the processes."""
        families = {metric.name: Family(metric.family, metric.help, metric.kind.value) for metric in METRICS}
        with self._lock:
            for recorder in list(self._recorders.values()):  # actions are bound without the lock
                for metric, sample in recorder.samples():
                    families[metric.name].samples.append(sample)
        for metric in (ACTION_COUNT, ACTION_DURATION, ACTION_SIZE):
            yield families[metric.name]
