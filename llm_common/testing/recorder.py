"""What a test sees of the metrics: events, values in the documented metric language, and assertions over both."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isclose

from llm_common.backends.memory import EndedRecord, MemoryBackend, Record, SizedRecord
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, ACTION_SIZE, METRICS, Metric
from llm_common.contract import ActionEvent, Status
from llm_common.dispatch import override
from llm_common.settings import clean_label

ANY = object()
"""Stands for "whatever it is" where ``None`` has a meaning of its own."""


class RecordedMetrics:
    """The metrics recorded in one test, or in one part of it. Reading takes nothing away."""

    def __init__(self, backend: MemoryBackend, buckets: Sequence[float] = ACTION_DURATION.buckets) -> None:
        self._backend = backend
        self._buckets = tuple(buckets)
        self._start = 0
        self._end: int | None = None

    @property
    def _records(self) -> Sequence[Record]:
        return self._backend.records[self._start : self._end]

    @property
    def events(self) -> list[ActionEvent]:
        """The actions that ended, in that order, as plain data that compares with ``==``; seconds are not compared."""
        return [record.event for record in self._records if isinstance(record, EndedRecord)]

    @contextmanager
    def delta(self) -> "Iterator[RecordedMetrics]":
        """Look at one part of a test: what is recorded inside the ``with`` block, also after it has ended."""
        part = RecordedMetrics(self._backend, self._buckets)
        part._start = len(self._backend.records)
        try:
            yield part
        finally:
            part._end = len(self._backend.records)

    def assert_action(
        self, name: str, *, status: Status | str | None = None, times: int = 1, size: float | object = ANY
    ) -> None:
        """Assert that the action ``name`` ended exactly ``times`` times, of those with this ``status`` and ``size``.

        ``status`` is ``"ok"``, ``"error"`` or ``"cancelled"``, any by default; ``size`` the sum of what the action gave
        to ``tracker.size()``, ``None`` for none, anything by default. Raises :class:`AssertionError` that says what was
        recorded, and :class:`ValueError` for a status that doesn't exist.
        """
        __tracebackhide__ = True
        wanted = None if status is None else _status(status)
        name = clean_label(_text(name, 'the action\'s name, as in assert_action("menu_handler")'))
        named = [event for event in self.events if event.name == name]
        matching = [
            event for event in named if wanted in (None, event.status) and (size is ANY or _same(event.size, size))
        ]
        if len(matching) == times:
            return
        conditions = [f"status={wanted}"] * (wanted is not None) + [f"size={size}"] * (size is not ANY)
        expected = f"{name!r} {_times(times)}" + (f" with {', '.join(conditions)}" if conditions else "")
        self._fail(f"expected the action {expected}; recorded {_times(len(matching))}", name, named)

    def assert_no_action(self, name: str) -> None:
        """Assert that the action ``name`` did not end, with whatever status."""
        __tracebackhide__ = True
        self.assert_action(name, times=0)

    def metric_value(self, metric: str, **labels: str) -> float:
        """Return the value of a series in the documented metric language, 0 where nothing was recorded.

        ``metric`` is a counter's name, or a histogram's with ``_count``, ``_sum`` (seconds) or ``_bucket`` (which takes
        the label ``le``). Labels that are left out match any value, and all series that match are added up, as
        PromQL's ``sum`` would.

        Raises :class:`ValueError` for a metric or label that the catalogue doesn't have.
        """
        family, suffix = _family(metric)
        _check_labels(family, suffix, labels)
        labels = {label: clean_label(_text(value, f"the label {label}")) for label, value in labels.items()}
        if "status" in labels:
            _status(labels["status"])
        if family is ACTION_SIZE:
            sized = (record for record in self._records if isinstance(record, SizedRecord))
            return float(sum(one.amount for one in sized if _matches(labels, one.name, one.env, one.app)))
        ended = [
            one.event
            for one in self._records
            if isinstance(one, EndedRecord) and _matches(labels, one.event.name, one.env, one.app, one.event.status)
        ]
        if suffix == "_sum":
            return float(sum(event.seconds for event in ended))
        if suffix == "_bucket":
            bound = self._bound(labels["le"])
            return float(sum(event.seconds <= bound for event in ended))
        return float(len(ended))

    def assert_metric(self, metric: str, expected: float, **labels: str) -> None:
        """Assert that :meth:`metric_value` of these arguments is ``expected``; seconds are compared approximately."""
        __tracebackhide__ = True
        value = self.metric_value(metric, **labels)
        same = isclose(value, expected, rel_tol=1e-9) if metric.endswith("_sum") else value == expected
        if not same:
            series = f"{metric}{{{', '.join(f'{label}={text!r}' for label, text in labels.items())}}}"
            name = clean_label(labels.get("name", ""))
            named = [event for event in self.events if not name or event.name == name]
            message = f"expected {series} to be {expected}; it is {value:g}"
            if labels.keys() & {"env", "app"}:
                places = sorted({f"env={record.env!r}, app={record.app!r}" for record in self._records})
                message += f" (recorded with {'; '.join(places) or 'nothing'})"
            self._fail(message, name, named)

    def report(self) -> str:
        """Return everything recorded as text, equal events counted together."""
        if not self.events:
            return "no action was recorded"
        return "\n".join(_lines(self.events))

    def __repr__(self) -> str:
        return f"<RecordedMetrics: {self.report()}>"

    def _bound(self, text: str) -> float:
        bounds = [*self._buckets, float("inf")]
        try:
            bound = float(text)
        except ValueError:
            bound = -1.0
        if bound not in bounds:
            raise ValueError(f"no bucket has le={text!r}; the bounds are {', '.join(f'{one:g}' for one in bounds)}")
        return bound

    def _fail(self, message: str, name: str, named: Sequence[ActionEvent]) -> None:
        __tracebackhide__ = True
        lines = [message]
        if named and name:
            lines += [f"of {name!r} was recorded:", *_lines(named)]
        else:
            names = sorted({event.name for event in self.events})
            close = difflib.get_close_matches(name, names, n=1)
            if close:
                lines.append(f"the nearest miss: {close[0]!r}")
            lines += ["recorded in all:", *(_lines(self.events) or ["  no action at all"])]
        raise AssertionError("\n".join(lines))


def _status(status: str) -> Status:
    if status not in set(Status):
        raise ValueError(f"{status!r} is no status; accepted: {', '.join(Status)}")
    return Status(status)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {value!r:.100}")
    return value


def _same(size: float | None, wanted: object) -> bool:
    if size is None or not isinstance(wanted, int | float):
        return size is wanted
    return isclose(size, wanted, rel_tol=1e-9)


def _times(number: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _lines(events: Sequence[ActionEvent]) -> list[str]:
    shown: Counter[tuple[str, str, str, str]] = Counter()
    for event in events:
        size = "" if event.size is None else f" size={event.size:g}"
        shown[event.name, str(event.status), size, f" ({event.error_name})" if event.error_name else ""] += 1
    width = max((len(name) for name, *_ in shown), default=0)
    return [
        f"  {name:{width}}  {status:9}  {_times(number)}{size}{error}"
        for (name, status, size, error), number in shown.items()
    ]


def _family(metric: str) -> tuple[Metric, str]:
    for family in (ACTION_COUNT, ACTION_SIZE):
        if metric == family.name:
            return family, ""
    suffixes = ("_count", "_sum", "_bucket")
    for suffix in suffixes:
        if metric == ACTION_DURATION.name + suffix:
            return ACTION_DURATION, suffix
    if metric == ACTION_DURATION.name:
        choices = ", ".join(metric + suffix for suffix in suffixes)
        raise ValueError(f"{metric} is a histogram, which has no single value; ask for one of {choices}")
    if any(metric.startswith(one.name) for one in METRICS if one not in {ACTION_COUNT, ACTION_DURATION, ACTION_SIZE}):
        raise ValueError(f"{metric} is in the catalogue, but nothing records it yet")
    known = [ACTION_COUNT.name, ACTION_SIZE.name, *(ACTION_DURATION.name + suffix for suffix in suffixes)]
    close = difflib.get_close_matches(metric, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown metric {metric!r}{hint} (known: {', '.join(known)})")


def _check_labels(family: Metric, suffix: str, labels: dict[str, str]) -> None:
    accepted = (*family.labels, "le") if suffix == "_bucket" else family.labels
    for label in labels:
        if label not in accepted:
            raise ValueError(f"{family.name}{suffix} has no label {label!r}; its labels: {', '.join(accepted)}")
    if suffix == "_bucket" and "le" not in labels:
        raise ValueError(f"{family.name}_bucket needs the label le, the upper bound of a bucket, such as le='0.1'")


def _matches(labels: dict[str, str], name: str, env: str, app: str, status: str = "") -> bool:
    series = {"name": name, "status": str(status), "env": env, "app": app}
    return all(series[label] == value for label, value in labels.items() if label != "le")


@contextmanager
def record_metrics(*, strict: bool = True) -> Iterator[RecordedMetrics]:
    """Record every action of this process for the length of a ``with`` block, and restore what was there before.

    Works for decorators that were applied at import, in threads and in asyncio tasks. Nested blocks record to the
    innermost. ``strict`` makes a tracking fault raise, as tests want it.
    """
    backend = MemoryBackend()
    with override(backends=(backend,), strict=strict) as pipeline:
        yield RecordedMetrics(backend, pipeline.settings.action_duration_buckets)
