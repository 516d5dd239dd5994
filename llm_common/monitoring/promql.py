"""Expressions of PromQL, built from the catalogue: a metric, label or part that it lacks is an error here.

What dashboards and alerts ask again and again, the rate of each metric summed over all instances, is recorded by rules.
:func:`rate` asks for what was recorded, or for the same from the raw series, and both give the same numbers: a sum of
sums over fewer labels is the sum.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from llm_common.action_names import HANDLER, TASK
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_FIRST_ITEM,
    ACTION_IN_PROGRESS,
    ACTION_SIZE,
    BACKEND_ERRORS,
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    LLM_TOKENS,
    Kind,
    Metric,
)

WINDOW = "5m"
"""Over how long recorded rates are taken: at least four scrapes, so that a missed one changes little."""
WINDOW_SECONDS = 300
"""The same in seconds."""

PARTS = {Kind.HISTOGRAM: ("bucket", "sum", "count"), Kind.COUNTER: ("",), Kind.GAUGE: ("",)}
"""What a scrape shows of each kind of metric, as endings of its name."""


class Match(NamedTuple):
    """What a label has to be like: an operator of PromQL and its operand."""

    operator: str
    value: str


def equal(value: str) -> Match:
    """Match this value alone."""
    return Match("=", value)


def like(pattern: str) -> Match:
    """Match values that a regular expression matches as a whole (RE2)."""
    return Match("=~", pattern)


def unlike(pattern: str) -> Match:
    """Match values that a regular expression doesn't match as a whole (RE2)."""
    return Match("!~", pattern)


def other_than(value: str) -> Match:
    """Match every value but this one."""
    return Match("!=", value)


Wanted = str | Match | tuple[Match, ...]
"""What a label has to be: a value, what it has to be like, or several of those at once."""


def ending(*suffixes: str) -> str:
    """Return a pattern for names of actions with one of the suffixes; ``_task`` alone is called ``task``."""
    return f"(.+_)?({'|'.join(suffix.removeprefix('_') for suffix in suffixes)})"


def quoted(text: str) -> str:
    """Return ``text`` as a string of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def series(metric: Metric, part: str = "", /, **labels: Wanted) -> str:
    """Return the selector of a metric's series: ``series(ACTION_COUNT, status="error", name=like(".+_task"))``.

    ``part`` is what is meant of a histogram: ``bucket``, ``sum`` or ``count``. Raises :class:`ValueError` for a part or
    a label that the metric doesn't have.
    """
    if part not in PARTS[metric.kind]:
        raise ValueError(f"a {metric.kind} has no part {part!r}; it has {', '.join(map(repr, PARTS[metric.kind]))}")
    return _selector(f"{metric.name}_{part}" if part else metric.name, labels_of(metric, part), labels)


def labels_of(metric: Metric, part: str = "") -> tuple[str, ...]:
    """Return the labels of the series that a scrape shows of a metric; a histogram's buckets have ``le`` too."""
    return (*metric.labels, "le") if part == "bucket" else metric.labels


class Recording(NamedTuple):
    """A rule that records the rate of a metric, summed over the instances and over labels that nobody asks for."""

    metric: Metric
    part: str
    labels: tuple[str, ...]
    """The labels that are kept, sorted."""
    operation: str = "rate"
    formula: str = ""
    """What is recorded, where it isn't the rate of the raw series."""

    @property
    def name(self) -> str:
        """What the recorded series are called: ``level:metric:operation``, the convention of Prometheus."""
        family = f"{self.metric.name}_{self.part}" if self.part else self.metric.family
        return f"{'_'.join(self.labels)}:{family}:{self.operation}{WINDOW}"

    @property
    def expression(self) -> str:
        """What is recorded."""
        return self.formula or f"sum by ({', '.join(self.labels)}) (rate({series(self.metric, self.part)}[{WINDOW}]))"

    def series(self, **labels: Wanted) -> str:
        """Return the selector of the recorded series; raises :class:`ValueError` for a label that isn't kept."""
        return _selector(self.name, self.labels, labels)


def _recording(metric: Metric, part: str = "", without: Iterable[str] = ()) -> tuple[tuple[str, str], Recording]:
    dropped = tuple(without)
    if unknown := set(dropped) - set(metric.labels):
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")
    labels = sorted(label for label in labels_of(metric, part) if label not in dropped)
    return (metric.name, part), Recording(metric, part, tuple(labels))


RECORDINGS = dict(
    (
        _recording(ACTION_COUNT),
        _recording(ACTION_DURATION, "bucket"),
        _recording(ACTION_DURATION, "sum"),
        _recording(ACTION_DURATION, "count"),
        _recording(ACTION_SIZE),
        _recording(HTTP_REQUESTS),
        _recording(HTTP_REQUEST_DURATION, "bucket", without=["method", "status"]),
        _recording(HTTP_REQUEST_DURATION, "sum", without=["method", "status"]),
        _recording(HTTP_REQUEST_DURATION, "count", without=["method", "status"]),
        _recording(HTTP_REQUEST_SIZE, "sum", without=["method", "status"]),
        _recording(HTTP_REQUEST_SIZE, "count", without=["method", "status"]),
        _recording(LLM_TOKENS),
        _recording(ACTION_FIRST_ITEM, "bucket"),
        _recording(BACKEND_ERRORS),
    )
)
"""What is recorded, by the metric's name and the part of it."""


def rate(
    metric: Metric,
    part: str = "",
    /,
    *,
    by: Iterable[str] = (),
    recorded: bool = True,
    offset: str = "",
    over: str = WINDOW,
    **labels: Wanted,
) -> str:
    """Return how much the matching series grow per second, summed over all but the labels in ``by``.

    ``recorded`` asks for what the recording rules made, else for the raw series; the numbers are the same. ``offset``
    is how long before, such as ``1w``. ``over`` is a window that is longer than :data:`WINDOW`; recorded series that
    began within it are averaged since then. Raises :class:`ValueError` for a label that isn't there or isn't recorded.
    """
    recording = RECORDINGS[metric.name, part]
    selector = recording.series(**labels)  # also where raw series are asked: both have to be possible
    if recorded and over != WINDOW:
        return over_time("avg", recording, over, by=by, offset=offset, **labels)
    back = f" offset {offset}" if offset else ""
    inner = f"{selector}{back}" if recorded else f"rate({series(metric, part, **labels)}[{over}]{back})"
    return f"sum{_by(by, recording.labels)} ({inner})"


def over_time(
    function: str,
    recording: Recording,
    window: str,
    /,
    *,
    by: Iterable[str] = (),
    offset: str = "",
    **labels: Wanted,
) -> str:
    """Return what ``function`` (such as ``sum``) makes of what was recorded within ``window``, summed as in rates.

    Raises :class:`ValueError` for a label that isn't recorded.
    """
    back = f" offset {offset}" if offset else ""
    return f"sum{_by(by, recording.labels)} ({function}_over_time({recording.series(**labels)}[{window}]{back}))"


def increase(
    metric: Metric,
    window: str,
    /,
    *,
    by: Iterable[str] = (),
    recorded: bool = False,
    offset: str = "",
    **labels: Wanted,
) -> str:
    """Return by how much the matching series of a counter grew within ``window``, summed as in :func:`rate`.

    ``recorded`` adds up what was recorded each :data:`WINDOW`, which is cheap over long windows and blind in shorter
    ones.
    """
    if recorded:
        rates = over_time("sum", RECORDINGS[metric.name, ""], f"{window}:{WINDOW}", by=by, offset=offset, **labels)
        return f"{rates} * {WINDOW_SECONDS}"
    back = f" offset {offset}" if offset else ""
    return f"sum{_by(by, metric.labels)} (increase({series(metric, **labels)}[{window}]{back}))"


def share(part: str, whole: str) -> str:
    """Return which share of ``whole`` is ``part``, both summed by the same labels.

    It is 0 where there is a whole and no part, and there is none where there is no whole.
    """
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def within(
    bound: float,
    metric: Metric,
    /,
    *,
    by: Iterable[str] = (),
    recorded: bool = True,
    offset: str = "",
    **labels: Wanted,
) -> str:
    """Return the share of a histogram's observations that were not above ``bound``, one of its buckets' bounds.

    Raises :class:`ValueError` for any other bound. ``le`` is matched in both spellings of a whole number.
    """
    if bound not in metric.buckets:
        raise ValueError(f"{metric.name} has no bucket up to {bound:g}; it has {', '.join(map(str, metric.buckets))}")
    asked: dict[str, Any] = {"by": by, "recorded": recorded, "offset": offset, **labels}
    # Prometheus' own text format says 1.0, OpenTelemetry's collector 1.
    le = like(re.escape(f"{bound:g}") + "([.]0)?")
    return share(rate(metric, "bucket", le=le, **asked), rate(metric, "count", **asked))


def mean(metric: Metric, /, *, by: Iterable[str] = (), recorded: bool = True, **labels: Wanted) -> str:
    """Return the mean of a histogram's observations, over all but the labels in ``by``; none where there are none."""
    asked: dict[str, Any] = {"by": by, "recorded": recorded, **labels}
    total, count = (rate(metric, part, **asked) for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def top(count: int, expression: str) -> str:
    """Return the ``count`` series of ``expression`` with the highest values."""
    return f"topk({count}, {expression})"


def existing(expression: str, where: str, *, on: Iterable[str]) -> str:
    """Return the series of ``expression`` that share the labels ``on`` with one of the expression ``where``."""
    return f"{expression} and on ({', '.join(on)}) {where}"


def in_progress(*, by: Iterable[str] = (), **labels: Wanted) -> str:
    """Return how many actions have begun and not ended, summed over all but the labels in ``by``."""
    return f"sum{_by(by, ACTION_IN_PROGRESS.labels)} ({series(ACTION_IN_PROGRESS, **labels)})"


def quantile(
    share: float,
    metric: Metric,
    /,
    *,
    by: Iterable[str] = (),
    recorded: bool = True,
    offset: str = "",
    over: str = WINDOW,
    **labels: Wanted,
) -> str:
    """Return the quantile ``share`` (0 to 1) of a histogram's observations, over all but the labels in ``by``."""
    buckets = rate(metric, "bucket", by=(*by, "le"), recorded=recorded, offset=offset, over=over, **labels)
    return f"histogram_quantile({share:g}, {buckets})"


def _by(labels: Iterable[str], known: tuple[str, ...]) -> str:
    listed = tuple(labels)
    if unknown := set(listed) - set(known):
        raise ValueError(f"there is no label {', '.join(sorted(unknown))} to sum by; there are {', '.join(known)}")
    return f" by ({', '.join(listed)})" if listed else ""


def _selector(name: str, known: tuple[str, ...], labels: dict[str, Wanted]) -> str:
    if unknown := labels.keys() - set(known):
        raise ValueError(f"{name} has no label {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    matchers = ", ".join(
        f"{label}{one.operator}{quoted(one.value)}" for label, wanted in labels.items() for one in _matches(wanted)
    )
    return f"{name}{{{matchers}}}" if matchers else name


def _matches(wanted: Wanted) -> tuple[Match, ...]:
    if isinstance(wanted, str):
        return (equal(wanted),)
    return (wanted,) if isinstance(wanted, Match) else wanted  # a Match is a tuple too


def _total(metric: Metric, *labels: str) -> Recording:
    every = RECORDINGS[metric.name, ""]
    return Recording(metric, "", labels, formula=f"sum by ({', '.join(labels)}) ({every.series()})")


ACTION_TOTAL = _total(ACTION_COUNT, "app", "env", "status")
HTTP_TOTAL = _total(HTTP_REQUESTS, "app", "app_type", "env", "status")
"""Rates of whole applications, few enough series to be read over days."""


def _seen() -> Recording:
    labels = ("app", "env", "name", "status")
    raw, by = series(ACTION_COUNT, name=like(ending(HANDLER, TASK))), f"by ({', '.join(labels)})"
    grown = f"sum {by} (increase({raw}[{WINDOW}])) > 0"
    # A counter is born with its first value, as in a process that was restarted: increase() sees nothing of that one.
    born = f"count {by} ({raw} > 0 unless {raw} offset {WINDOW})"
    return Recording(ACTION_COUNT, "", labels, "seen", f"{grown}\nor\n{born}")


ACTION_SEEN = _seen()
"""A value wherever a handler or task ended within the window, else nothing: also not the first run is missed."""

EVERY_RECORDING = (*RECORDINGS.values(), ACTION_TOTAL, HTTP_TOTAL, ACTION_SEEN)
"""All that is recorded."""
