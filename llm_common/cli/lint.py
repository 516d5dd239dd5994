"""``llm-common lint``: what is wrong with the tracking in a project's code."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from llm_common.cli.reports import Explain, Ignore, ListRules, Select, described, ending, format_option, write
from llm_common.lint.config import configured
from llm_common.lint.files import File, find, standard_input
from llm_common.lint.rules import RULES
from llm_common.lint.run import lint as findings_in
from llm_common.reporting.formats import FORMATS
from llm_common.settings import find_pyproject

LONG = 200
"""From how many files on a terminal shows a progress bar."""


def lint(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders; - reads standard input.", show_default="the working directory"),
    ] = None,
    output: Annotated[str, format_option(FORMATS)] = "text",
    select: Select = None,
    ignore: Ignore = None,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Exit with status 0 also where there are findings.")
    ] = False,
    stdin_filename: Annotated[str, typer.Option(help="What standard input is called in reports.")] = "stdin.py",
    explain: Explain = None,
    list_rules: ListRules = False,
) -> None:
    """Check how code is tracked: names, suffixes, swallowed exceptions, handlers that nothing tracks.

    Code is read, never imported. Give it the whole project, since some of it shows only in all files together.
    The exit status is 0 without findings, 1 with findings, 2 where options or configuration are wrong.
    """
    with ending("lint"):
        if list_rules or explain is not None:
            write(described(None if list_rules else explain, RULES, "lint"))
            return
        status = run(paths or ["."], output, select or [], ignore or [], stdin_filename)
    raise typer.Exit(0 if exit_zero else status)


def run(
    paths: Sequence[str],
    output: str,
    select: Sequence[str],
    ignore: Sequence[str],
    stdin_filename: str,
) -> int:
    """Do what the options say; return 1 where there are findings, else 0."""
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
