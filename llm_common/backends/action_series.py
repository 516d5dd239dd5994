"""The actions in the Prometheus backend of a single process: their recorders, and their lines on the scrape."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from llm_common.backends import exemplars
from llm_common.backends.batching import Folder, HistogramLines, counted, histogram_samples, total
from llm_common.backends.exemplars import Exemplars
from llm_common.backends.rendering import (
    Format,
    PreparedFamily,
    counter_template,
    go_number,
    histogram_template,
    placeholder,
    quoted,
)
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE
from llm_common.contract import FOLD_AT, ExemplarSource, Status


class Totals(NamedTuple):
    """What was folded so far. Immutable, so that a reader always sees values that belong together."""

    ok: int
    error: int
    cancelled: int
    seconds: float
    buckets: tuple[int, ...]
    """How many durations fell into each bucket, not cumulative; the last is the one up to ``+Inf``."""
    size: float | None
    """``None`` until a size was given, so that the series appears only then."""


class ActionTemplates:
    """The lines of any action of one application on the scrape, with places for the action's name and the values."""

    def __init__(self, env: str, app: str, bounds: tuple[float, ...]) -> None:
        name = placeholder(env, app)
        self.counts = tuple(
            counter_template(ACTION_COUNT, (name, status.value, env, app)).split(name) for status in Status
        )
        """By status, in the order of :class:`Status`."""
        self.duration = HistogramLines(
            histogram_template(ACTION_DURATION, (name, env, app), bounds).split(name),
            histogram_template(ACTION_DURATION, (name, env, app), bounds, "%s").split(name),
        )
        self.size = counter_template(ACTION_SIZE, (name, env, app)).split(name)


class ActionSeries:
    """The recorder of one action: all series that share its ``name``, ``env`` and ``app``."""

    __slots__ = (
        "_cancelled",
        "_folder",
        "_sizes",
        "bounds",
        "error",
        "exemplars",
        "labels",
        "ok",
        "templates",
        "totals",
    )

    def __init__(
        self, folder: Folder, labels: tuple[str, str, str], bounds: tuple[float, ...], templates: ActionTemplates
    ) -> None:
        self._folder = folder
        self.labels = labels
        """``name``, ``env`` and ``app``."""
        self.bounds = bounds
        """The upper bounds of the duration's buckets, in seconds."""
        self.templates = templates
        self.exemplars: Exemplars | None = None
        """``None`` until a configuration has a source of them."""
        self.ok: list[float] = []
        self.error: list[float] = []
        self._cancelled: list[float] = []
        self._sizes: list[float] = []
        self.forget()

    def forget(self) -> None:
        """Begin at zero, in a child process: what was counted before the fork is its parent's."""
        self.totals = Totals(0, 0, 0, 0.0, (0,) * (len(self.bounds) + 1), None)
        for samples in (self.ok, self.error, self._cancelled, self._sizes):
            samples.clear()

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        if status is Status.OK:
            samples = self.ok
        elif status is Status.ERROR:
            samples = self.error
        else:
            samples = self._cancelled
        samples.append(seconds)
        if len(samples) >= FOLD_AT:
            self.fold()

    def sized(self, amount: float) -> None:
        """Add to the action's size."""
        self._sizes.append(amount)
        if len(self._sizes) >= FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Move what the lists hold into :attr:`totals`, unless a fold or a scrape is under way: a later one will."""
        self._folder.offer(self)

    def fold_now(self) -> None:
        """Move what the lists hold into :attr:`totals`. Nobody else folds meanwhile."""
        ok, error, cancelled, sizes = self.ok, self.error, self._cancelled, self._sizes
        oks, errors, cancellations, sized = len(ok), len(error), len(cancelled), len(sizes)
        durations = ok[:oks] + error[:errors] + cancelled[:cancellations]
        before = self.totals
        size = before.size
        if sized:
            size = total((size or 0.0, *sizes[:sized]))
        totals = Totals(
            before.ok + oks,
            before.error + errors,
            before.cancelled + cancellations,
            total((before.seconds, *durations)),
            counted(durations, self.bounds, before.buckets),
            size,
        )
        # No call stands between the two halves of this hand-over: the interpreter runs signal handlers, and lets
        # exceptions of other threads in, only at calls and jumps. So nothing can be lost or doubled by either.
        self.totals = totals
        del ok[:oks]
        del error[:errors]
        del cancelled[:cancellations]
        del sizes[:sized]

    @property
    def shown_labels(self) -> dict[str, str]:
        """The labels that all series of the action share."""
        return dict(zip(ACTION_DURATION.labels, self.labels, strict=True))


class TracedActionRecorder:
    """The recorder of an action where there is a source of exemplars."""

    __slots__ = ("_exemplars", "_series", "sized", "source")

    def __init__(self, series: ActionSeries, exemplars: Exemplars, source: ExemplarSource) -> None:
        self._series = series
        self._exemplars = exemplars
        self.source = source
        self.sized = series.sized

    def finished(self, status: Status, seconds: float) -> None:
        """Count one action and observe its duration in seconds."""
        self._series.finished(status, seconds)
        labels = self.source()
        if labels is not None:
            self._exemplars.keep(labels, status.value, self._series.bounds, seconds)


Snapshot = list[tuple[ActionSeries, Totals]]


def snapshot(every: list[ActionSeries]) -> Snapshot:
    """Return those series that have counted anything, with their totals."""
    return [(one, totals) for one in every if any((totals := one.totals)[:3]) or totals.size is not None]


def families(every: Snapshot) -> Iterator[Family]:
    """Yield the actions' families, to be written when somebody asks for their text or their samples."""
    yield PreparedFamily(ACTION_COUNT, lambda form: _count_text(every, form), lambda: _count_samples(every))
    yield PreparedFamily(ACTION_DURATION, lambda form: _duration_text(every, form), lambda: _duration_samples(every))
    yield PreparedFamily(ACTION_SIZE, lambda _: _size_text(every), lambda: _size_samples(every))


def _count_text(every: Snapshot, form: Format) -> Iterator[str]:
    for series, totals in every:
        name = quoted(series.labels[0])
        for status, template, ended in zip(Status, series.templates.counts, totals[:3], strict=True):
            if ended:
                line = name.join(template) % go_number(ended)
                if series.exemplars and form == "openmetrics":
                    line = exemplars.with_count_exemplar(line, status.value, series.exemplars)
                yield line


def _duration_text(every: Snapshot, form: Format) -> Iterator[str]:
    for series, totals in every:
        if any(totals[:3]):
            lines = series.templates.duration.filled(quoted(series.labels[0]), totals.buckets, totals.seconds)
            if series.exemplars and form == "openmetrics":
                lines = exemplars.with_bucket_exemplars(lines, series.exemplars)
            yield lines


def _size_text(every: Snapshot) -> Iterator[str]:
    for series, totals in every:
        if totals.size is not None:
            yield quoted(series.labels[0]).join(series.templates.size) % go_number(totals.size)


def _count_samples(every: Snapshot) -> list[Sample]:
    return [
        exemplars.count_sample(
            Sample(ACTION_COUNT.name, {**series.shown_labels, "status": status.value}, ended),
            status.value,
            series.exemplars,
        )
        for series, totals in every
        for status, ended in zip(Status, totals[:3], strict=True)
        if ended
    ]


def _duration_samples(every: Snapshot) -> list[Sample]:
    return [
        sample
        for series, totals in every
        if any(totals[:3])
        for sample in exemplars.bucket_samples(
            histogram_samples(ACTION_DURATION, series.shown_labels, series.bounds, totals.buckets, totals.seconds),
            series.exemplars,
        )
    ]


def _size_samples(every: Snapshot) -> list[Sample]:
    return [
        Sample(ACTION_SIZE.name, series.shown_labels, totals.size)
        for series, totals in every
        if totals.size is not None
    ]
