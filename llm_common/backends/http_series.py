"""The HTTP exchanges in the Prometheus backend of a single process: their recorders, and their lines on the scrape."""

from collections.abc import Iterator
from functools import partial
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
    quoted,
)
from llm_common.catalog import HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE, HTTP_REQUESTS, Buckets, Metric
from llm_common.contract import ExemplarSource, HttpSeries

FOLD_AT = 64
"""How many exchanges a list holds before it is folded. There may be thousands of series, and each has a list."""

DIRECTIONS = ("in", "out")
"""The request's body and the response's."""


class HttpTotals(NamedTuple):
    """What was folded so far. Immutable, so that a reader always sees values that belong together."""

    exchanges: int
    seconds: float
    durations: tuple[int, ...]
    """How many durations fell into each bucket, not cumulative; the last is the one up to ``+Inf``."""
    request_bytes: float
    request_sizes: tuple[int, ...]
    """The same for the sizes of the requests' bodies."""
    response_bytes: float
    response_sizes: tuple[int, ...]
    """The same for the sizes of the responses' bodies."""


class HttpTemplates:
    """The lines of any series of one application and ``app_type``, with a place for its other labels and the values.

    Those others, ``method``, ``resource`` and ``status``, stand side by side on the scrape, where labels are sorted.
    """

    def __init__(self, app_type: str, env: str, app: str, buckets: Buckets) -> None:
        mark = "<>"  # any will do: with the quotes around it, it occurs in no label's value
        fixed = {"app_type": app_type, "env": env, "app": app}

        def cut(metric: Metric, write: "partial[str]", **more: str) -> list[str]:
            values = tuple({**fixed, **more}.get(label, mark) for label in metric.labels)
            return write(metric, values).split(other_labels(mark, mark, mark))

        def histogram(metric: Metric, bounds: tuple[float, ...], **more: str) -> HistogramLines:
            return HistogramLines(
                cut(metric, partial(histogram_template, bounds=bounds), **more),
                cut(metric, partial(histogram_template, bounds=bounds, number="%s"), **more),
            )

        self.requests = cut(HTTP_REQUESTS, partial(counter_template))
        self.duration = histogram(HTTP_REQUEST_DURATION, buckets.http_duration)
        self.sizes = tuple(histogram(HTTP_REQUEST_SIZE, buckets.http_size, direction=one) for one in DIRECTIONS)


def other_labels(method: str, resource: str, status: str) -> str:
    """Return the labels in which the series of one ``app_type`` differ, as they stand in a template."""
    return f'method="{quoted(method)}",resource="{quoted(resource)}",status="{quoted(status)}"'


class HttpBatch:
    """The recorder of one HTTP series."""

    __slots__ = ("_env_app", "_folder", "_samples", "buckets", "exemplars", "series", "templates", "totals")

    def __init__(
        self, folder: Folder, series: HttpSeries, env: str, app: str, buckets: Buckets, templates: HttpTemplates
    ) -> None:
        self._folder = folder
        self._env_app = (env, app)
        self.series = series
        self.buckets = buckets
        self.templates = templates
        self.exemplars: Exemplars | None = None
        """``None`` until a configuration has a source of them."""
        self._samples: list[float] = []
        """Seconds, bytes of the request and bytes of the response, by turns: three entries for each exchange."""
        self.forget()

    def forget(self) -> None:
        """Begin at zero, in a child process: what was counted before the fork is its parent's."""
        durations, sizes = (0,) * (len(self.buckets.http_duration) + 1), (0,) * (len(self.buckets.http_size) + 1)
        self.totals = HttpTotals(0, 0.0, durations, 0, sizes, 0, sizes)
        self._samples.clear()

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Count one exchange."""
        samples = self._samples
        samples.extend((seconds, request_bytes, response_bytes))  # as atomic as append
        if len(samples) >= 3 * FOLD_AT:
            self._folder.offer(self)

    def fold_now(self) -> None:
        """Move what was collected into :attr:`totals`. Nobody else folds meanwhile."""
        samples = self._samples
        taken = len(samples)
        if not taken:
            return
        durations, requests, responses = samples[0:taken:3], samples[1:taken:3], samples[2:taken:3]
        before = self.totals
        totals = HttpTotals(
            before.exchanges + len(durations),
            total((before.seconds, *durations)),
            counted(durations, self.buckets.http_duration, before.durations),
            total((before.request_bytes, *requests)),
            counted(requests, self.buckets.http_size, before.request_sizes),
            total((before.response_bytes, *responses)),
            counted(responses, self.buckets.http_size, before.response_sizes),
        )
        # As in ActionSeries.fold_now(): no call stands between the two halves of the hand-over.
        self.totals = totals
        del samples[:taken]

    @property
    def shown_labels(self) -> dict[str, str]:
        """The labels of the series; sizes have the direction besides."""
        env, app = self._env_app
        return {**self.series._asdict(), "env": env, "app": app}


class TracedHttpRecorder:
    """The recorder of an HTTP series where there is a source of exemplars."""

    __slots__ = ("_batch", "_exemplars", "source")

    def __init__(self, batch: HttpBatch, exemplars: Exemplars, source: ExemplarSource) -> None:
        self._batch = batch
        self._exemplars = exemplars
        self.source = source

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Count one exchange."""
        batch = self._batch
        batch.finished(seconds, request_bytes, response_bytes)
        labels = self.source()
        if labels is not None:
            self._exemplars.keep(labels, batch.series.status, batch.buckets.http_duration, seconds)


HttpSnapshot = list[tuple[HttpBatch, HttpTotals]]


def snapshot(every: list[HttpBatch]) -> HttpSnapshot:
    """Return those series that have counted anything, with their totals."""
    return [(one, totals) for one in every if (totals := one.totals).exchanges]


def families(every: HttpSnapshot) -> Iterator[Family]:
    """Yield the HTTP families, to be written when somebody asks for their text or their samples."""
    yield PreparedFamily(HTTP_REQUESTS, lambda form: _requests_text(every, form), lambda: _requests_samples(every))
    yield PreparedFamily(
        HTTP_REQUEST_DURATION, lambda form: _duration_text(every, form), lambda: _duration_samples(every)
    )
    yield PreparedFamily(HTTP_REQUEST_SIZE, lambda _: _size_text(every), lambda: _size_samples(every))


def _others(batch: HttpBatch) -> str:
    return other_labels(batch.series.method, batch.series.resource, batch.series.status)


def _sizes(totals: HttpTotals) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Return the buckets and the sum for each of :data:`DIRECTIONS`."""
    return (totals.request_sizes, totals.request_bytes), (totals.response_sizes, totals.response_bytes)


def _requests_text(every: HttpSnapshot, form: Format) -> Iterator[str]:
    for batch, totals in every:
        line = _others(batch).join(batch.templates.requests) % go_number(totals.exchanges)
        if batch.exemplars and form == "openmetrics":
            line = exemplars.with_count_exemplar(line, batch.series.status, batch.exemplars)
        yield line


def _duration_text(every: HttpSnapshot, form: Format) -> Iterator[str]:
    for batch, totals in every:
        lines = batch.templates.duration.filled(_others(batch), totals.durations, totals.seconds)
        if batch.exemplars and form == "openmetrics":
            lines = exemplars.with_bucket_exemplars(lines, batch.exemplars)
        yield lines


def _size_text(every: HttpSnapshot) -> Iterator[str]:
    for batch, totals in every:
        others = _others(batch)
        for lines, (buckets, sum_of_bytes) in zip(batch.templates.sizes, _sizes(totals), strict=True):
            yield lines.filled(others, buckets, sum_of_bytes)


def _requests_samples(every: HttpSnapshot) -> list[Sample]:
    return [
        exemplars.count_sample(
            Sample(HTTP_REQUESTS.name, batch.shown_labels, totals.exchanges), batch.series.status, batch.exemplars
        )
        for batch, totals in every
    ]


def _duration_samples(every: HttpSnapshot) -> list[Sample]:
    return [
        sample
        for batch, totals in every
        for sample in exemplars.bucket_samples(
            histogram_samples(
                HTTP_REQUEST_DURATION, batch.shown_labels, batch.buckets.http_duration, totals.durations, totals.seconds
            ),
            batch.exemplars,
        )
    ]


def _size_samples(every: HttpSnapshot) -> list[Sample]:
    return [
        sample
        for batch, totals in every
        for direction, (buckets, sum_of_bytes) in zip(DIRECTIONS, _sizes(totals), strict=True)
        for sample in histogram_samples(
            HTTP_REQUEST_SIZE,
            {**batch.shown_labels, "direction": direction},
            batch.buckets.http_size,
            buckets,
            sum_of_bytes,
        )
    ]
