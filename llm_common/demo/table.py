"""The figures as tables: what the live screen and the summary have in common."""

import math
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures, HttpFigures, RouteFigures, Timed

WIDE = 100
"""From how many characters on the columns stand further apart."""
TIMES = {"p50": 6, "p95": 6}
"""The columns of durations, with the characters that each needs."""
ACTION_NUMBERS = {"ok": 6, "error": 5, "cancelled": 9, "error %": 7, **TIMES}
ROUTE_NUMBERS = {"ok": 5, "4xx": 4, "5xx": 4, "none": 4, **TIMES}
EXCHANGE_NUMBERS = {"status": 9, "count": 5, **TIMES, "in": 6, "out": 6}
MIN_LAST = 8
"""How many characters a column of bars gets at the least."""
BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " .:-=+*#@"


class Sparkline:
    """A line of bars, one for each of the first ``seconds`` seconds; the latest ones where there is no room for all."""

    def __init__(self, per_second: Mapping[int, int], seconds: int) -> None:
        self._per_second = per_second
        self._seconds = seconds

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bars = ASCII_BARS if options.ascii_only else BARS
        shown = range(max(0, self._seconds - options.max_width), self._seconds)
        counts = [self._per_second.get(second, 0) for second in shown]
        top = max([1, *counts])
        yield Segment("".join(bars[math.ceil(count / top * (len(bars) - 1))] for count in counts))


def new_table(width: int, names: Sequence[str], numbers: Mapping[str, int]) -> Table:
    """Return a table without rows for a console that is ``width`` characters wide.

    Its columns are ``names``, then ``numbers``, of which each is given the characters that it needs.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0) if width >= WIDE else 0)
    # Where there is no room, names are cropped and numbers never: half a number is a wrong one. rich's ellipsis is a
    # character that not every terminal can show.
    for each in names:
        table.add_column(each, no_wrap=True, overflow="crop")
    for each, digits in numbers.items():
        table.add_column(each, justify="right", no_wrap=True, min_width=max(len(each), digits))
    return table


def action_table(
    figures: Sequence[ActionFigures],
    width: int,
    heading: str,
    cell: Callable[[ActionFigures], Sparkline | str],
    justify: JustifyMethod = "left",
) -> Table:
    """Return the table of all actions. The last column has this ``heading``, and what ``cell`` returns for each."""
    table = new_table(width, ["action"], ACTION_NUMBERS)
    table.add_column(heading, justify=justify, no_wrap=True, overflow="crop", min_width=MIN_LAST)
    for action in figures:
        table.add_row(
            action.name,
            *(str(action.counts[status]) for status in Status),
            f"{action.error_share * 100:.1f}",
            *times(action),
            cell(action),
        )
    return table


def route_table(
    figures: Sequence[RouteFigures], width: int, heading: str, cell: Callable[[RouteFigures], Sparkline]
) -> Table:
    """Return the table of HTTP by route, with the statuses in four groups: it changes its height but seldom.

    The last column has this ``heading``, and what ``cell`` returns for each.
    """
    table = new_table(width, ["app_type", "method", "resource"], ROUTE_NUMBERS)
    table.add_column(heading, no_wrap=True, overflow="crop", min_width=MIN_LAST)
    for one in figures:
        bad, broken, none = one.counts["4"], one.counts["5"], one.counts[""]
        counts = (str(count) for count in (one.total - bad - broken - none, bad, broken, none))
        table.add_row(one.app_type, one.method, one.resource, *counts, *times(one), cell(one))
    return table


def exchange_table(figures: Sequence[HttpFigures], width: int) -> Table:
    """Return the table of all HTTP series, with the bytes of the requests (in) and of the responses (out)."""
    table = new_table(width, ["app_type", "method", "resource"], EXCHANGE_NUMBERS)
    for one in figures:
        method, status, resource, app_type = one.series
        sizes = (byte_count(one.request_bytes), byte_count(one.response_bytes))
        table.add_row(app_type, method, resource, status, str(one.total), *times(one), *sizes)
    return table


def times(figures: Timed) -> tuple[str, str]:
    """Return the two quantiles that every table shows."""
    return duration(figures.quantile(0.5)), duration(figures.quantile(0.95))


def duration(seconds: float) -> str:
    """Return a duration for people to read: ``850 us``, ``12 ms``, ``1.20 s``; ``-`` where it isn't a number."""
    if math.isnan(seconds):
        return "-"
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"


def byte_count(count: int) -> str:
    """Return a number of bytes for people to read: ``850 B``, ``12 kB``, ``1.2 MB``; ``-`` where there are none."""
    if not count:
        return "-"
    if count < 1_000:
        return f"{count} B"
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 9_950_000 else f"{count / 1e6:.0f} MB"
