"""``llm-common demo``: a support bot whose metrics you watch."""

import math
import sys
from typing import Annotated

import typer
from rich.console import Console

from llm_common.cli import needing


def above_zero(seconds: float) -> float:
    """Return ``seconds`` if they can be waited for; raise typer's usage error otherwise."""
    if not 0 < seconds < math.inf:
        raise typer.BadParameter("must be a number of seconds above 0")
    return seconds


def demo(
    seconds: Annotated[float, typer.Option(callback=above_zero, help="How long it runs.")] = 30.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to serve /metrics; 0 takes any free port.")] = 0,
    backend: Annotated[
        str | None,
        typer.Option(help="Names of backends, separated by commas.", show_default="what the settings say"),
    ] = None,
    seed: Annotated[int, typer.Option(help="What all chance in it follows from.")] = 1,
    outage: Annotated[
        float, typer.Option(min=0, help="How many seconds, at first, the model is down; see your alerts ring.")
    ] = 0.0,
) -> None:
    """Run a small shop, its support bot and its website, and watch their metrics.

    The bot searches articles and talks to an LLM server of its own; some of its calls are slow, fail or are cancelled.
    The metrics are served on 127.0.0.1 meanwhile. It ends by itself, or at once with Ctrl-C (exit status 0).
    """
    fix = "llm-common demo needs its extra; install it with: pip install 'llm_common[demo]'"
    with needing({"fastapi", "httpx", "uvicorn"}, fix):
        from llm_common.demo.run import DemoError, Options, run_demo

    # Whether this is a terminal is not for FORCE_COLOR to say: a live screen is of no use in a pipe.
    console = Console(force_terminal=sys.stdout.isatty())
    try:
        run_demo(Options(seconds, port, backend, seed, outage), console)
    except DemoError as problem:
        typer.echo(f"llm-common demo: {problem}", err=True)
        raise typer.Exit(problem.status) from None
