"""What alerts ask: conditions in PromQL that hold where something is wrong, built from the catalogue.

Each says with ``least`` how many events per minute there have to be, so that one failure of two is no 50 %.
"""

from collections.abc import Sequence
from typing import Any

from llm_common.action_names import HANDLER, TASK
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, BACKEND_ERRORS, Metric
from llm_common.contract import Status
from llm_common.monitoring.promql import (
    ACTION_SEEN,
    RECORDINGS,
    WINDOW,
    Match,
    Recording,
    ending,
    like,
    over_time,
    quantile,
    rate,
    series,
)

ACTION = ("app", "env", "name")
"""The labels that tell actions apart."""

BACKEND = ("app", "backend", "env", "operation")
"""The labels that tell apart where backends fail."""

FAULTS_WINDOW = "15m"
"""How long a fault of a backend is news. One that is switched off is tried again within ten minutes."""

SLOW_TASK_WINDOW = "6h"
"""Over how long the duration of tasks is judged, since many run once in hours."""

PAUSES = (("10m", "6h", "45m"), ("1h", "2d", "3h"), ("8h", "6d", "1d"), ("1d", "14d", "3d"))
"""A task that ran in at least half of the intervals (first) of a while (second) is missed after a pause (third).

Half of them means that it runs at least once in two intervals, so that the pause is longer than any that is usual. The
while is at least twice the next pause: where one line has forgotten that the task used to run, the next takes over.
"""

FAST = ((14.4, "1h", WINDOW), (6.0, "6h", "30m"))
SLOW = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))
"""How fast a budget burns, as a multiple of what lasts for 30 days, and the windows in which it has to be seen.

From Google's Site Reliability Workbook, chapter 5: the long window says that it matters, the short one that it goes on.
"""


def share_above(
    allowed: float, metric: Metric, by: Sequence[str], bad: str | Match, least: float, **labels: Any
) -> str:
    """Return where the share of events with the status ``bad`` is above ``allowed``."""
    every = rate(metric, by=by, **labels)
    failed = rate(metric, by=by, **labels, status=bad)
    return f"{failed}\n/ {every} > {allowed:g}\nand\n{every} * 60 >= {least:g}"


def slower_than(seconds: float, metric: Metric, by: Sequence[str], least: float, **labels: Any) -> str:
    """Return where the 95th percentile or the mean is above so many seconds.

    Where an application's own buckets end below them, no quantile can be above, but the mean is right.
    """
    count = rate(metric, "count", by=by, **labels)
    return (
        f"(\n  {quantile(0.95, metric, by=by, **labels)} > {seconds:g}\n"
        f"  or\n  {rate(metric, 'sum', by=by, **labels)}\n  / {count} > {seconds:g}\n)\n"
        f"and\n{count} * 60 >= {least:g}"
    )


def tasks_slower_than(seconds: float) -> str:
    """Return where tasks of the last hours were slower; a single one that took so long is worth knowing.

    The mean comes first: of few runs, in buckets as wide as hours, a quantile says little.
    """
    name = like(ending(TASK))
    buckets, total, count = (
        over_time("sum", RECORDINGS[ACTION_DURATION.name, part], SLOW_TASK_WINDOW, by=by, name=name)
        for part, by in (("bucket", (*ACTION, "le")), ("sum", ACTION), ("count", ACTION))
    )
    return f"{total}\n/ {count} > {seconds:g}\nor\nhistogram_quantile(0.95, {buckets}) > {seconds:g}"


def stopped() -> str:
    """Return for how many seconds at least tasks have paused that used to run without such pauses."""
    return "\nor\n".join(_paused(*pause) for pause in reversed(PAUSES))


def _paused(interval: str, while_: str, pause: str) -> str:
    half = seconds_of(while_) / seconds_of(interval) / 2
    conditions = [f"{_intervals(interval, while_)} >= {half:g}", _seen(pause, TASK)]
    # Who paused at this time of yesterday or of last week as well, and ran before, rests at night or on Sundays.
    conditions += [
        f"({_seen(ago, TASK, ago)} unless {_seen(pause, TASK, ago)})"
        for ago in ("1d", "1w")
        if seconds_of(pause) < seconds_of(ago)
    ]
    text = "\nunless\n".join(conditions)
    return f"0 * (\n{_indented(text)}\n) + {seconds_of(pause):g}"


def only_failing() -> str:
    """Return where tasks failed again and again without success; of what ran once in a day, once is enough."""
    failed, fine = Status.ERROR, Status.OK
    tiers = [
        f"{_intervals(interval, while_, status=failed)} >= 3\nunless\n{_seen(while_, TASK, status=fine)}"
        for interval, while_ in (("10m", "1h"), ("1h", "6h"))
    ]
    return "\nor\n".join([*tiers, f"{_seen('1d', TASK, status=failed)}\nunless\n{_seen('1d', TASK, status=fine)}"])


def vanished(window: str, least: float) -> str:
    """Return how often per minute handlers ran yesterday that ran last week too and didn't within ``window``."""
    recorded, name = RECORDINGS[ACTION_COUNT.name, ""], like(ending(HANDLER))
    yesterday, last_week = (
        f"{over_time('avg', recorded, window, by=ACTION, offset=ago, name=name)} * 60 >= {least:g}"
        for ago in ("1d", "1w")
    )
    return f"(\n  {yesterday}\n  and\n  {last_week}\n)\nunless\n{_seen(window, HANDLER)}"


def backend_fails() -> str:
    """Return by how much faults of backends grew."""
    raw, by = series(BACKEND_ERRORS), f"by ({', '.join(BACKEND)})"
    # A counter is born with its first fault, of which increase() sees nothing.
    return f"sum {by} (increase({raw}[{FAULTS_WINDOW}])) > 0\nor\nsum {by} ({raw} unless {raw} offset {FAULTS_WINDOW})"


def burns(
    burning: Sequence[tuple[float, str, str]],
    objective: float,
    total: Recording,
    bad: str | Match,
    least: float,
    **labels: Any,
) -> str:
    """Return where the budget that ``objective`` leaves burns as fast as one of ``burning`` says.

    With a large budget there are rates that not even an outage reaches; they are left out, and nothing may be left.
    """
    by = [label for label in total.labels if label != "status"]
    found = []
    for factor, *windows in burning:
        allowed = factor * (1 - objective)
        if allowed >= 1:
            continue
        shares = (
            f"{over_time('sum', total, window, by=by, **labels, status=bad)}\n"
            f"/ {over_time('sum', total, window, by=by, **labels)} > {allowed:.6g}"
            for window in windows
        )
        enough = f"{over_time('avg', total, windows[0], by=by, **labels)} * 60 >= {least:g}"
        text = "\nand\n".join([*shares, enough])
        found.append(f"(\n{_indented(text)}\n)")
    return "\nor\n".join(found)


def seconds_of(duration: str) -> float:
    """Return how many seconds a duration of PromQL in one unit has, such as ``10m``."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[duration[-1]]


def _seen(window: str, suffix: str, ago: str = "", **labels: Any) -> str:
    return over_time("present", ACTION_SEEN, window, by=ACTION, offset=ago, name=like(ending(suffix)), **labels)


def _intervals(interval: str, while_: str, **labels: Any) -> str:
    # A run is seen for as long as WINDOW; in intervals without gaps between them it would count twice on the hour.
    apart = f"{seconds_of(interval) / 60 - 4:g}m"
    return f"count_over_time(({_seen(apart, TASK, **labels)})[{while_}:{interval}])"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
