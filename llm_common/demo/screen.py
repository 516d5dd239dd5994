"""The live screen: how far the demo is, and the figures of each action and each route, drawn anew all the time."""

from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from llm_common.demo.recorder import ActionFigures, DemoRecorder, HttpFigures, Timed, by_route
from llm_common.demo.table import Sparkline, action_table, route_table

HEADING = "by second"


def picture(
    actions: Sequence[ActionFigures], exchanges: Sequence[HttpFigures], elapsed: float, seconds: float, width: int
) -> RenderableType:
    """Return what the screen shows after ``elapsed`` of ``seconds`` seconds, for ``width`` characters."""
    progress = Table.grid(padding=(0, 2, 0, 0))
    progress.add_row(ProgressBar(total=seconds, completed=elapsed, width=40), f"{elapsed:.1f} of {seconds:g} s")

    def bars(figures: Timed) -> Sparkline:
        return Sparkline(figures.per_second, int(elapsed))

    tables = [action_table(actions, width, HEADING, bars), route_table(by_route(exchanges), width, HEADING, bars)]
    for table in tables:
        table.expand = True
        table.columns[-1].ratio = 1
    return Group("", progress, "", tables[0], "", tables[1])


class Screen:
    """The live display in a ``with`` statement. It is gone at the end; where there is no terminal, it never was."""

    def __init__(self, console: Console, recorder: DemoRecorder, seconds: float) -> None:
        self._console = console
        self._recorder = recorder
        self._seconds = seconds
        shown = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if shown else None

    def draw(self) -> None:
        """Show the figures of this moment."""
        actions, exchanges = self._recorder.actions(), self._recorder.exchanges()
        if self._live is not None:
            elapsed = min(self._recorder.elapsed, self._seconds)
            self._live.update(picture(actions, exchanges, elapsed, self._seconds, self._console.width), refresh=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
