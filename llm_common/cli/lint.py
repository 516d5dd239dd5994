"""``llm-common lint``: what is wrong with the tracking in a project's code."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from llm_common.cli.reports import known_format, write
from llm_common.errors import ConfigurationError
from llm_common.lint.config import configured, meant
from llm_common.lint.files import File, find, standard_input
from llm_common.lint.rules import RULES
from llm_common.lint.run import lint as findings_in
from llm_common.reporting.formats import FORMATS, explained
from llm_common.settings import find_pyproject

LONG = 200
"""From how many files on a terminal shows a progress bar."""


def lint(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders; - reads standard input.", show_default="the working directory"),
    ] = None,
    output: Annotated[
        str, typer.Option("--format", callback=known_format, help=f"How to report: {', '.join(FORMATS)}.")
    ] = "text",
    select: Annotated[
        list[str] | None, typer.Option(help="Only these codes, or beginnings of codes, separated by commas.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Not these codes, or beginnings of codes, separated by commas.")
    ] = None,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with status 0 also where there are findings.")
    ] = False,
    stdin_filename: Annotated[str, typer.Option(help="What standard input is called in reports.")] = "stdin.py",
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Say what a code means, and exit.")] = None,
    list_rules: Annotated[bool, typer.Option("--list", help="List the codes, and exit.")] = False,
) -> None:
    """Check how code is tracked: names, suffixes, swallowed exceptions, handlers that nothing tracks.

    Code is read, never imported. Give it the whole project, since some of it shows only in all files together.
    The exit status is 0 without findings, 1 with findings, 2 where options or configuration are wrong.
    """
    try:
        status = run(paths or ["."], output, select or [], ignore or [], stdin_filename, explain, list_rules)
    except ConfigurationError as problem:
        typer.echo(f"llm-common lint: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if exit_zero else status)


def run(
    paths: Sequence[str],
    output: str,
    select: Sequence[str],
    ignore: Sequence[str],
    stdin_filename: str,
    explain: str | None,
    list_rules: bool,
) -> int:
    """Do what the options say; return 1 where there are findings, else 0."""
    if list_rules:
        write("".join(f"{rule.code}  {rule.summary}\n" for rule in RULES.values()))
        return 0
    if explain is not None:
        codes = meant([explain], "the option --explain")
        write("\n".join(explained(RULES[code]) for code in sorted(codes)))
        return 0
    config = configured(find_pyproject(Path.cwd()), select, ignore)
    files = find([path for path in paths if path != "-"], config.excludes)
    if "-" in paths:
        given = standard_input(sys.stdin.buffer.read(), stdin_filename)
        files = [*(file for file in files if file.path != given.path), given]  # an editor has what isn't saved yet
    findings = findings_in(shown_progress(files), config)
    write(FORMATS[output](findings, len(files)))
    return 1 if findings else 0


def shown_progress(files: Sequence[File]) -> Iterator[File]:
    """Yield the files, with a progress bar where that takes a while and somebody watches."""
    watched = sys.stderr.isatty() and len(files) >= LONG
    yield from track(files, "checking", console=Console(stderr=True), transient=True, disable=not watched)
