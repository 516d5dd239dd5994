"""The application that typer runs: one command per module of this package, added here."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from llm_common.cli.check import check
from llm_common.cli.demo import demo
from llm_common.cli.doctor import doctor
from llm_common.cli.lint import lint
from llm_common.cli.monitoring import monitoring

app = typer.Typer(
    name="llm-common",
    help="Metrics for LLM applications, Telegram bots and web services.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(lint)
app.command()(check)
app.command()(doctor)
app.add_typer(monitoring)


def print_version(wanted: bool) -> None:
    """Print the version of the installed package and exit, if it is ``wanted``."""
    if wanted:
        try:
            installed = version("llm_common")
        except PackageNotFoundError:  # run from a source tree
            installed = "(not installed)"
        typer.echo(f"llm-common {installed}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before any command."""
