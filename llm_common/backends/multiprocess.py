"""The values of the Prometheus backend with several processes: written through to prometheus_client's mapped files.

With ``PROMETHEUS_MULTIPROC_DIR`` set, every measurement goes straight into the files of this process, so that a worker
that is killed loses nothing, and any process can serve the sum. The recorders hold the library's values themselves,
one for each line of the scrape: that is what its metric classes come down to.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from threading import RLock
from typing import Any

from prometheus_client import values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from llm_common.backends.rendering import go_number
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE, METRICS, Metric
from llm_common.contract import Status


class MultiprocessActionRecorder:
    """The recorder of one action: a value for each series, made when the series first counts something."""

    __slots__ = ("_bounds", "_buckets", "_counts", "_make", "_seconds", "_size", "env_app", "name")

    def __init__(self, store: "MultiprocessActionStore", name: str, env: str, app: str) -> None:
        self.name = name
        self.env_app = (env, app)
        self._bounds = store.bounds
        self._make = store.make
        self._counts: dict[Status, Any] = {}
        self._buckets: list[Any] = []
        self._seconds: Any = None
        self._size: Any = None

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        try:
            count = self._counts[status]
        except KeyError:
            count = self._make(self._begin, status)
        count.inc(1)
        self._seconds.inc(seconds)
        self._buckets[bisect_left(self._bounds, seconds)].inc(1)

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        (self._size or self._make(self._begin_size)).inc(amount)

    def _begin(self, status: Status) -> Any:
        if not self._buckets:
            labels = (self.name, *self.env_app)
            self._seconds = new_value(ACTION_DURATION, "_sum", labels)
            self._buckets = [
                new_value(ACTION_DURATION, "_bucket", labels, go_number(bound))
                for bound in (*self._bounds, float("inf"))
            ]
        by_status = (self.name, status.value, *self.env_app)
        count = self._counts[status] = self._counts.get(status) or new_value(ACTION_COUNT, "_total", by_status)
        return count

    def _begin_size(self) -> Any:
        self._size = self._size or new_value(ACTION_SIZE, "_total", (self.name, *self.env_app))
        return self._size

    def samples(self) -> Iterator[tuple[Metric, Sample]]:
        """Yield every sample of this process, with the metric that it belongs to."""
        labels = dict(zip(ACTION_DURATION.labels, (self.name, *self.env_app), strict=True))
        for status, count in list(self._counts.items()):
            yield ACTION_COUNT, Sample(ACTION_COUNT.name, {**labels, "status": status.value}, count.get())
        buckets = list(self._buckets)
        cumulative = list(accumulate(bucket.get() for bucket in buckets))
        for bound, upto in zip((*self._bounds, float("inf")), cumulative, strict=False):
            le = {**labels, "le": go_number(bound)}
            yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_bucket", le, upto)
        if cumulative:
            yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_count", labels, cumulative[-1])
            yield ACTION_DURATION, Sample(f"{ACTION_DURATION.name}_sum", labels, self._seconds.get())
        if self._size:
            yield ACTION_SIZE, Sample(ACTION_SIZE.name, labels, self._size.get())


def new_value(metric: Metric, suffix: str, labels: tuple[str, ...], *le: str) -> Any:
    """Return prometheus_client's value for one line of the scrape, in the file of this process."""
    names = (*metric.labels, "le") if le else metric.labels
    return values.ValueClass(
        metric.kind.value, metric.family, metric.family + suffix, names, (*labels, *le), metric.help
    )


class MultiprocessActionStore:
    """The action metrics of this process. One for all registries, since they would share the same files."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._recorders: dict[tuple[str, str, str], MultiprocessActionRecorder] = {}
        self._lock = RLock()

    @property
    def empty(self) -> bool:
        """Whether no action was ever bound, so that the bounds can still change."""
        return not self._recorders

    def action(self, name: str, env: str, app: str) -> MultiprocessActionRecorder:
        """Return the recorder of an action, always the same for the same labels."""
        key = (name, env, app)
        found = self._recorders.get(key)
        return found or self._recorders.setdefault(key, MultiprocessActionRecorder(self, name, env, app))

    def make(self, begin: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``begin`` makes, one caller at a time: two values for one line would overwrite each other."""
        with self._lock:
            return begin(*arguments)

    def after_fork(self) -> None:
        """Replace the lock; prometheus_client turns to the files of the new process by itself."""
        self._lock = RLock()

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        for metric in (ACTION_COUNT, ACTION_DURATION, ACTION_SIZE):
            yield Family(metric.family, metric.help, metric.kind.value)

    def collect(self) -> Iterator[Family]:
        """Yield what this process alone has counted, for endpoints that don't sum over the processes."""
        families = {metric.name: Family(metric.family, metric.help, metric.kind.value) for metric in METRICS}
        for recorder in list(self._recorders.values()):
            for metric, sample in recorder.samples():
                families[metric.name].samples.append(sample)
        for metric in (ACTION_COUNT, ACTION_DURATION, ACTION_SIZE):
            yield families[metric.name]
