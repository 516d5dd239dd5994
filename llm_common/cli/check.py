"""``llm-common check``: whether dashboards, rules and pages of metrics name what the catalogue has."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llm_common.cli import needing
from llm_common.cli.reports import known_format, write
from llm_common.errors import ConfigurationError
from llm_common.reporting.formats import FORMATS, explained
from llm_common.reporting.rules import expand
from llm_common.settings import find_pyproject, resolve


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|URL…",
            help="Dashboards, rule files, saved pages of metrics, folders of these, and addresses of live pages.",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--format", callback=known_format, help=f"How to report: {', '.join(FORMATS)}.")
    ] = "text",
    metrics: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|URL", help="A page of the application: what it shows may be named as well."),
    ] = None,
    target_label: Annotated[
        list[str] | None, typer.Option(help="A label that your scrape configuration adds to every series.")
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="Only these codes, or beginnings of codes, separated by commas.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Not these codes, or beginnings of codes, separated by commas.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long a live page may take, in seconds.")
    ] = 10.0,
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Say what a code means, and exit.")] = None,
    list_rules: Annotated[bool, typer.Option("--list", help="List the codes, and exit.")] = False,
) -> None:
    """Check that dashboards, rules and pages of metrics name what the catalogue has.

    Nothing but the addresses that are named is asked. Give dashboards and the rules that record for them together.
    The exit status is 0 without findings other than warnings, 1 with findings, 2 where an argument is wrong.
    """
    fix = "llm-common check needs its extra; install it with: pip install 'llm_common[monitoring]'"
    with needing({"promql_parser", "yaml"}, fix):
        import llm_common.monitoring.checking.run  # noqa: F401 - everything that it needs
    try:
        if list_rules or explain is not None:
            write(described(explain))
            return
        status = run(paths or [], output, metrics or [], target_label or [], select or [], ignore or [], timeout)
    except ConfigurationError as problem:
        typer.echo(f"llm-common check: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status)


def described(code: str | None) -> str:
    """Return what there is to say about codes, or a list of them all."""
    from llm_common.monitoring.checking.rules import RULES

    if code is None:
        return "".join(f"{rule.code}  {rule.summary}\n" for rule in RULES.values())
    return "\n".join(explained(RULES[one]) for one in sorted(expand([code], "the option --explain", RULES, "check")))


def run(
    paths: Sequence[str],
    output: str,
    metrics: Sequence[str],
    target_labels: Sequence[str],
    select: Sequence[str],
    ignore: Sequence[str],
    timeout: float,
) -> int:
    """Do what the options say; return 1 where there are findings that aren't warnings, else 0."""
    from llm_common.monitoring.checking.rules import ALWAYS, RULES
    from llm_common.monitoring.checking.run import check as findings_in
    from llm_common.monitoring.checking.run import with_metrics
    from llm_common.monitoring.checking.sources import sources
    from llm_common.monitoring.checking.vocabulary import vocabulary

    def meant(option: str, given: Sequence[str]) -> frozenset[str]:
        codes = [one for text in given for one in text.split(",")]
        return expand(codes, f"the option --{option}", RULES, "check")

    if not paths:
        raise ConfigurationError("there is nothing to check; name files, folders or addresses of pages (http://…)")
    codes = ((meant("select", select) or frozenset(RULES)) | ALWAYS) - meant("ignore", ignore)
    settings = resolve({}, os.environ, find_pyproject(Path.cwd()))
    known = vocabulary(buckets=settings.buckets, target_labels=target_labels)
    known = with_metrics(known, sources(metrics), timeout)
    given = sys.stdin.buffer.read() if "-" in paths else b""
    found, files = findings_in(sources(paths, given), known, codes=codes, timeout=timeout)
    write(FORMATS[output](found, files))
    return int(any(not one.warning for one in found))
