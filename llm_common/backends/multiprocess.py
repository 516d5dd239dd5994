"""The values of the Prometheus backend with several processes: written through to mapped files.

With ``PROMETHEUS_MULTIPROC_DIR`` set, every measurement goes straight into files of this process, so that a worker that
is killed loses nothing, and any process can serve the sum. The files are prometheus_client's own kind, which its
``MultiProcessCollector`` reads; but they are separate ones, so that an action takes the lock once and not three times,
and none of its checks for a fork: the interpreter says when one happened.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from sys import is_finalizing
from threading import RLock
from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.samples import Sample

from llm_common.backends.batching import histogram_samples
from llm_common.backends.folding import GAUGE_FILES, begin_file
from llm_common.backends.rendering import empty_families, go_number
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    METRICS,
    Buckets,
    Kind,
    Metric,
)
from llm_common.contract import HttpSeries, Status


def unopened(key: str, value: float, timestamp: float) -> None:
    """Stand for the file of a process that couldn't make one when it was forked."""
    raise OSError("this process has no file of its own for its metrics")


class MappedValue:
    """One line of the scrape, kept in a file. Whoever changes it holds the store's lock."""

    __slots__ = ("key", "metric", "total", "write")

    def __init__(self, store: "MultiprocessStore", metric: Metric, key: str) -> None:
        self.metric = metric
        self.key = key
        self.open(store)

    def open(self, store: "MultiprocessStore") -> None:
        """Begin at zero, in the file of this process."""
        file = store.file(self.metric)
        self.total: float = file.read_value(self.key)[0]  # type: ignore[no-untyped-call]
        self.write: Callable[[str, float, float], None] = file.write_value

    def observe(self, amount: float) -> None:
        """Add ``amount``."""
        self.total += amount
        self.write(self.key, self.total, 0.0)


class MappedHistogram:
    """The lines of one histogram's series, kept in a file. Whoever observes holds the store's lock."""

    __slots__ = ("_bounds", "_buckets", "_total")

    def __init__(
        self, store: "MultiprocessStore", metric: Metric, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        self._bounds = bounds
        self._buckets = [store.value(metric, "_bucket", (*labels, go_number(bound)), "le") for bound in (*bounds, inf)]
        self._total = store.value(metric, "_sum", labels)

    def observe(self, amount: float) -> None:
        """Count one value."""
        total = self._total
        bucket = self._buckets[bisect_left(self._bounds, amount)]
        total.total += amount
        bucket.total += 1.0
        total.write(total.key, total.total, 0.0)
        bucket.write(bucket.key, bucket.total, 0.0)

    def samples(self, metric: Metric, labels: dict[str, str]) -> Iterator[Sample]:
        """Yield the samples of the series."""
        return histogram_samples(
            metric, labels, self._bounds, tuple(int(bucket.total) for bucket in self._buckets), self._total.total
        )


class MultiprocessActionRecorder:
    """The recorder of one action: a value for each line, made when the line first counts something."""

    __slots__ = ("_counts", "_duration", "_labels", "_size", "_store")

    def __init__(self, store: "MultiprocessStore", name: str, env: str, app: str) -> None:
        self._labels = (name, env, app)
        self._store = store
        self._counts: dict[Status, MappedValue] = {}
        self._duration: MappedHistogram | None = None
        self._size: MappedValue | None = None

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        self._store.write(self._finish, status, seconds)

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        self._store.write(self._add, amount)

    def _finish(self, status: Status, seconds: float) -> None:
        duration = self._duration
        if duration is None or status not in self._counts:
            duration = self._begin(status)
        count = self._counts[status]
        count.observe(1.0)
        duration.observe(seconds)

    def _add(self, amount: float) -> None:
        size = self._size
        if size is None:
            size = self._size = self._store.value(ACTION_SIZE, "_total", self._labels)
        size.observe(amount)

    def _begin(self, status: Status) -> MappedHistogram:
        name, env, app = self._labels
        if self._duration is None:
            bounds = self._store.buckets.action_duration
            self._duration = MappedHistogram(self._store, ACTION_DURATION, self._labels, bounds)
        self._counts[status] = self._store.value(ACTION_COUNT, "_total", (name, status.value, env, app))
        return self._duration

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """Yield every sample of this process, with the metric that it belongs to."""
        labels = dict(zip(ACTION_DURATION.labels, self._labels, strict=True))
        for status, count in list(self._counts.items()):
            yield ACTION_COUNT, Sample(ACTION_COUNT.name, {**labels, "status": status.value}, count.total)
        if self._duration is not None:
            for sample in self._duration.samples(ACTION_DURATION, labels):
                yield ACTION_DURATION, sample
        if self._size is not None:
            yield ACTION_SIZE, Sample(ACTION_SIZE.name, labels, self._size.total)


class HttpValues(NamedTuple):
    """What one HTTP series counts, kept in files."""

    requests: MappedValue
    duration: MappedHistogram
    request_size: MappedHistogram
    response_size: MappedHistogram


class MultiprocessHttpRecorder:
    """The recorder of one HTTP series; its values are made when it first counts something."""

    __slots__ = ("_labels", "_store", "_values")

    def __init__(self, store: "MultiprocessStore", series: HttpSeries, env: str, app: str) -> None:
        self._labels = {**series._asdict(), "env": env, "app": app}
        self._store = store
        self._values: HttpValues | None = None

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Count one exchange."""
        self._store.write(self._finish, seconds, request_bytes, response_bytes)

    def _finish(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        values = self._values
        if values is None:
            values = self._values = self._begin()
        values.requests.observe(1.0)
        values.duration.observe(seconds)
        values.request_size.observe(request_bytes)
        values.response_size.observe(response_bytes)

    def _begin(self) -> HttpValues:
        def values(metric: Metric, **more: str) -> tuple[str, ...]:
            labels = {**self._labels, **more}
            return tuple(labels[label] for label in metric.labels)

        def size(direction: str) -> MappedHistogram:
            labels = values(HTTP_REQUEST_SIZE, direction=direction)
            return MappedHistogram(self._store, HTTP_REQUEST_SIZE, labels, self._store.buckets.http_size)

        return HttpValues(
            self._store.value(HTTP_REQUESTS, "_total", values(HTTP_REQUESTS)),
            MappedHistogram(
                self._store,
                HTTP_REQUEST_DURATION,
                values(HTTP_REQUEST_DURATION),
                self._store.buckets.http_duration,
            ),
            size("in"),
            size("out"),
        )

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """Yield every sample of this process, with the metric that it belongs to."""
        if self._values is None:
            return
        requests, duration, request_size, response_size = self._values
        yield HTTP_REQUESTS, Sample(HTTP_REQUESTS.name, self._labels, requests.total)
        for sample in duration.samples(HTTP_REQUEST_DURATION, self._labels):
            yield HTTP_REQUEST_DURATION, sample
        for direction, sizes in (("in", request_size), ("out", response_size)):
            for sample in sizes.samples(HTTP_REQUEST_SIZE, {**self._labels, "direction": direction}):
                yield HTTP_REQUEST_SIZE, sample


class MultiprocessExtraRecorder:
    """The recorder of one series of a metric beside the contract; its values are made when it first measures."""

    __slots__ = ("_metric", "_store", "_value", "_values")

    def __init__(self, store: "MultiprocessStore", metric: Metric, values: tuple[str, ...]) -> None:
        self._store = store
        self._metric = metric
        self._values = values
        self._value: MappedValue | MappedHistogram | None = None

    def record(self, amount: float) -> None:
        """Add to a counter or gauge, or observe in a histogram."""
        self._store.write(self._record, amount)

    def _record(self, amount: float) -> None:
        value = self._value
        if value is None:
            value = self._value = self._begin()
        value.observe(amount)

    def _begin(self) -> "MappedValue | MappedHistogram":
        if self._metric.kind is Kind.HISTOGRAM:
            bounds = self._store.buckets.of(self._metric)
            return MappedHistogram(self._store, self._metric, self._values, bounds)
        suffix = self._metric.name.removeprefix(self._metric.family)
        return self._store.value(self._metric, suffix, self._values)

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """Yield every sample of this process, with the metric that it belongs to."""
        labels = dict(zip(self._metric.labels, self._values, strict=True))
        if isinstance(self._value, MappedHistogram):
            for sample in self._value.samples(self._metric, labels):
                yield self._metric, sample
        elif self._value is not None:
            yield self._metric, Sample(self._metric.name, labels, self._value.total)


class MultiprocessStore:
    """All metrics of this process. One for all registries, since they share the same files."""

    def __init__(self, buckets: Buckets, directory: str) -> None:
        self.buckets = buckets
        self._lock = RLock()  # re-entrant, so that a signal handler that tracks can't deadlock
        self._writing = False
        self._left_alone = False
        """Set once the interpreter ends and no other thread goes on."""
        self.write: Callable[..., None] = self._write
        """Call ``write(change, *arguments)``, which writes values, while nothing else in this process does."""
        self._interruptions: list[Callable[[], None]] = []
        """What was tracked in the middle of a write by the same thread; written right after it."""
        self._directory = os.path.abspath(directory)  # also for children that were forked elsewhere
        self._files: dict[str, MmapedDict] = {}
        self._locks: dict[int, os.stat_result] = {}
        """Descriptors that tell other processes, for as long as they are open, that this one lives."""
        self._values: list[MappedValue] = []
        self._unopened: list[MappedValue] = []
        """Those without a file yet, in a child process that couldn't make one."""
        self._actions: dict[tuple[str, str, str], MultiprocessActionRecorder] = {}
        self._http: dict[tuple[HttpSeries, str, str], MultiprocessHttpRecorder] = {}
        self._extras: dict[tuple[Metric, tuple[str, ...]], MultiprocessExtraRecorder] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was ever bound, so that the bounds can still change."""
        return not (self._actions or self._http or self._extras)

    def action(self, name: str, env: str, app: str) -> MultiprocessActionRecorder:
        """Return the recorder of an action, always the same for the same labels."""
        key = (name, env, app)
        found = self._actions.get(key)
        return found or self._actions.setdefault(key, MultiprocessActionRecorder(self, name, env, app))

    def http(self, series: HttpSeries, env: str, app: str) -> MultiprocessHttpRecorder:
        """Return the recorder of an HTTP series, always the same for the same labels."""
        key = (series, env, app)
        found = self._http.get(key)
        return found or self._http.setdefault(key, MultiprocessHttpRecorder(self, series, env, app))

    def metric(self, metric: Metric, values: tuple[str, ...]) -> MultiprocessExtraRecorder:
        """Return the recorder of one series of a metric beside the contract, always the same for the same values."""
        found = self._extras.get((metric, values))
        return found or self._extras.setdefault((metric, values), MultiprocessExtraRecorder(self, metric, values))

    def _write(self, change: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            if self._writing:  # this very thread was interrupted, by a signal handler or a __del__ that tracks
                self._interruptions.append(partial(change, *arguments))
                return
            self._writing = True
            try:
                if self._unopened:
                    self._open()
                change(*arguments)
                while self._interruptions:
                    self._interruptions.pop(0)()
            finally:
                self._writing = False

    def at_exit(self) -> None:
        """Wait for no daemon thread from now on that stands still while it writes, as all do when the interpreter ends.

        Only now, since looking costs time with each write.
        """
        self.write = partial(self._write_at_exit, is_finalizing)

    def _write_at_exit(self, ending: Callable[[], bool], change: Callable[..., None], *arguments: Any) -> None:
        if ending() and not self._left_alone:
            self._left_alone = True
            self._lock, self._writing = type(self._lock)(), False
        self._write(change, *arguments)

    def file(self, metric: Metric) -> MmapedDict:
        """Return the file of this process for such metrics, by whose name prometheus_client knows their type."""
        kind = GAUGE_FILES if metric.kind is Kind.GAUGE else metric.kind.value
        if kind not in self._files:
            path, lock = begin_file(self._directory, kind)
            try:
                self._files[kind] = MmapedDict(path)  # type: ignore[no-untyped-call]
            except BaseException:  # there is no descriptor left: not even this one is kept from the application
                os.close(lock)
                os.remove(path)
                raise
            self._locks[lock] = os.fstat(lock)
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
        for lock, file in self._locks.items():  # the parent's, who might be taken to live as long as this process
            with suppress(OSError):  # a daemon has closed it, and another file may have the number now
                if os.path.samestat(os.fstat(lock), file):
                    os.close(lock)
        self._locks.clear()
        self._unopened = list(self._values)
        for value in self._values:
            value.write = unopened  # whatever happens below, nothing goes to the parent's file
        with suppress(OSError):  # no descriptor or space is left: each write tries again
            self._open()

    def _open(self) -> None:
        while self._unopened:
            self._unopened[-1].open(self)
            self._unopened.pop()

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        return empty_families()

    def collect(self) -> Iterator[Family]:
        """Yield what this process alone has counted, for endpoints that don't sum over the processes."""
        families = dict(zip((metric.name for metric in METRICS), empty_families(), strict=True))
        with self._lock:
            recorders: list[MultiprocessActionRecorder | MultiprocessHttpRecorder | MultiprocessExtraRecorder] = []
            recorders += list(self._http.values())  # at once, since series are bound without the lock
            recorders += list(self._actions.values())
            recorders += list(self._extras.values())
            for recorder in recorders:
                for metric, sample in recorder.samples():
                    if metric.name not in families:
                        families[metric.name] = Family(metric.family, metric.help, metric.kind.value)
                    families[metric.name].samples.append(sample)
        yield from families.values()
