"""``python -m benchmarks``: measure, print the table, write the JSON; see ``--help``."""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.rows import Row, multiprocess_rows, rows

SLACK = 2.0
"""How many times a bar the short form tolerates: it guards against slow code, not against a noisy machine."""


def table(measured: list[Row]) -> Table:
    """Return the rows as a table for people."""
    shown = Table(title=f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    shown.add_column("what")
    shown.add_column("against")
    for heading in ("figure", "bar", "ns each"):
        shown.add_column(heading, justify="right")
    for row in measured:
        missed = row.bar is not None and row.figure > row.bar
        figure = f"{row.figure:.2f} {row.unit}"
        bar = "" if row.bar is None else f"{row.bar:g}{' missed' if missed else ''}"
        each = "" if row.nanoseconds is None else f"{row.nanoseconds:,.0f}"
        shown.add_row(row.what, row.against, figure, bar, each)
    return shown


def main() -> int:
    """Run what the arguments say. Returns the exit status: 1 where ``--check`` finds a row past its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per row, 5 at the least (default 15)")
    parser.add_argument("--short", action="store_true", help="the fewest rounds and actions")
    parser.add_argument("--check", action="store_true", help=f"fail where a figure is past {SLACK:g} times its bar")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--multiprocess", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rounds = 5 if options.short else options.rounds
    if options.multiprocess:
        print(json.dumps(multiprocess_rows(rounds)))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 130)
    actions = 10_000 if options.short else 100_000
    progress = Console(stderr=True)
    series = 1_000 if options.short else 10_000
    measured = list(
        track(rows(rounds, actions, series), "measuring", console=progress, disable=not progress.is_terminal)
    )
    console.print(table(measured))
    if options.json:
        machine = {"python": sys.version, "machine": platform.platform(), "rounds": rounds}
        options.json.write_text(json.dumps({**machine, "rows": [asdict(row) for row in measured]}, indent=1) + "\n")
    slow = [row for row in measured if row.bar is not None and row.figure > SLACK * row.bar]
    if options.check:
        for row in slow:
            print(f"too slow: {row.what} is {row.figure:.2f} against {row.against}; the bar is {row.bar:g}")
    return 1 if options.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
