"""The figures of the actions as a table: what the live screen and the summary have in common."""

import math
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures

WIDE = 100
"""From how many characters on the columns stand further apart."""
NUMBERS = {"ok": 6, "error": 5, "cancelled": 9, "error %": 7, "p50": 6, "p95": 6}
"""The columns of numbers, with the characters that each needs."""
MIN_LAST = 8
"""How many characters the last column gets at the least."""
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


def action_table(
    figures: Sequence[ActionFigures],
    width: int,
    heading: str,
    cell: Callable[[ActionFigures], Sparkline | str],
    justify: JustifyMethod = "left",
) -> Table:
    """Return the table of all ``figures`` for a console that is ``width`` characters wide.

    The last column has this ``heading``, and for each action what ``cell`` returns.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0) if width >= WIDE else 0)
    # Where there is no room, names are cropped and numbers never: half a number is a wrong one. rich's ellipsis is a
    # character that not every terminal can show.
    table.add_column("action", no_wrap=True, overflow="crop")
    for each, digits in NUMBERS.items():
        table.add_column(each, justify="right", no_wrap=True, min_width=max(len(each), digits))
    table.add_column(heading, justify=justify, no_wrap=True, overflow="crop", min_width=MIN_LAST)
    for action in figures:
        table.add_row(
            action.name,
            *(str(action.counts[status]) for status in Status),
            f"{action.error_share * 100:.1f}",
            duration(action.quantile(0.5)),
            duration(action.quantile(0.95)),
            cell(action),
        )
    return table


def duration(seconds: float) -> str:
    """Return a duration for people to read: ``850 us``, ``12 ms``, ``1.20 s``; ``-`` where it isn't a number."""
    if math.isnan(seconds):
        return "-"
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.2f} s"
