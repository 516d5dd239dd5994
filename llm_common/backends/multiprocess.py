"""The values of the Prometheus backend with several processes: written through to prometheus_client's mapped files.

With ``PROMETHEUS_MULTIPROC_DIR`` set, every measurement goes straight into the files of this process, so that a worker
that is killed loses nothing, and any process can serve the sum.
"""

from collections.abc import Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE
from llm_common.contract import Status


class MultiprocessActionRecorder:
    """The recorder of one action, with its children bound; each series appears when it first counts something."""

    __slots__ = ("_children", "_labels", "_store")

    def __init__(self, store: "MultiprocessActionStore", name: str, env: str, app: str) -> None:
        self._store = store
        self._labels = (name, env, app)
        self._children: dict[str, Counter | Histogram] = {}

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        try:
            count, duration = self._children[status], self._children["duration"]
        except KeyError:
            name, env, app = self._labels
            count = self._children[status] = self._store.count.labels(name, status.value, env, app)
            duration = self._children["duration"] = self._store.duration.labels(*self._labels)
        count.inc()  # type: ignore[union-attr]
        duration.observe(seconds)  # type: ignore[union-attr]

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        try:
            size = self._children["size"]
        except KeyError:
            size = self._children["size"] = self._store.size.labels(*self._labels)
        size.inc(amount)  # type: ignore[union-attr]


class MultiprocessActionStore:
    """The action metrics of this process. One for all registries, since they would share the same files."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.count = Counter(ACTION_COUNT.family, ACTION_COUNT.help, ACTION_COUNT.labels, registry=None)
        self.duration = Histogram(
            ACTION_DURATION.family, ACTION_DURATION.help, ACTION_DURATION.labels, registry=None, buckets=bounds
        )
        self.size = Counter(ACTION_SIZE.family, ACTION_SIZE.help, ACTION_SIZE.labels, registry=None)
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

    def after_fork(self) -> None:
        """Keep everything: prometheus_client turns to the files of the new process by itself."""

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        for metric in (self.count, self.duration, self.size):
            yield from metric.describe()

    def collect(self) -> Iterator[Metric]:
        """Yield what this process alone has counted, for endpoints that don't sum over the processes."""
        for metric in (self.count, self.duration, self.size):
            for family in metric.collect():
                family.samples = [one for one in family.samples if not one.name.endswith("_created")]
                yield family
