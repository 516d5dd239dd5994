"""What is left on the terminal, or in the pipe, when the demo is over."""

from collections.abc import Sequence

from rich.console import Console

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures
from llm_common.demo.table import action_table


def print_summary(console: Console, figures: Sequence[ActionFigures], elapsed: float) -> None:
    """Print how many actions ended how in ``elapsed`` seconds, with the size of each in its own unit."""
    total = sum(action.total for action in figures)
    statuses = ", ".join(f"{sum(action.counts[status] for action in figures)} {status}" for status in Status)
    console.print(f"\n{total} actions in {elapsed:.1f} s: {statuses}\n", soft_wrap=True)
    console.print(action_table(figures, console.width, "size", size, "right"))


def size(action: ActionFigures) -> str:
    """Return the sum of the action's sizes; ``-`` where it has none."""
    return "-" if action.size is None else f"{action.size:.0f}"
