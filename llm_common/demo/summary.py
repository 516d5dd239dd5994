"""What is left on the terminal, or in the pipe, when the demo is over."""

from collections.abc import Sequence

from rich.console import Console

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures, HttpFigures
from llm_common.demo.table import action_table, exchange_table
from llm_common.http_labels import SERVER


def print_summary(
    console: Console, actions: Sequence[ActionFigures], exchanges: Sequence[HttpFigures], elapsed: float
) -> None:
    """Print how many actions and HTTP exchanges ended how in ``elapsed`` seconds.

    Sizes of actions are in the unit of each, those of requests and responses in bytes.
    """
    total = sum(action.total for action in actions)
    statuses = ", ".join(f"{sum(action.counts[status] for action in actions)} {status}" for status in Status)
    console.print(f"\n{total} actions in {elapsed:.1f} s: {statuses}\n", soft_wrap=True)
    console.print(action_table(actions, console.width, "size", size, "right"))
    served = sum(one.total for one in exchanges if one.series.app_type == SERVER)
    sent = sum(one.total for one in exchanges) - served
    console.print(f"\n{served + sent} HTTP requests: {served} served, {sent} sent\n", soft_wrap=True)
    console.print(exchange_table(exchanges, console.width))


def size(action: ActionFigures) -> str:
    """Return the sum of the action's sizes; ``-`` where it has none."""
    return "-" if action.size is None else f"{action.size:.0f}"
