"""``llm-common check``: whether dashboards, rules and pages of metrics name what the catalogue has."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llm_common.cli import needing
from llm_common.cli.reports import Explain, Ignore, ListRules, Select, chosen, described, ending, format_option, write
from llm_common.errors import ConfigurationError
from llm_common.reporting.formats import FORMATS
from llm_common.settings import find_pyproject, resolve


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|URL…",
            help="Dashboards, rule files, saved pages of metrics, folders of these, and addresses of live pages.",
        ),
    ] = None,
    output: Annotated[str, format_option(FORMATS)] = "text",
    metrics: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|URL", help="A page of the application: what it shows may be named as well."),
    ] = None,
    target_label: Annotated[
        list[str] | None, typer.Option(help="A label that your scrape configuration adds to every series.")
    ] = None,
    select: Select = None,
    ignore: Ignore = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long a live page may take, in seconds.")
    ] = 10.0,
    explain: Explain = None,
    list_rules: ListRules = False,
) -> None:
    """Check that dashboards, rules and pages of metrics name what the catalogue has.

    Nothing but the addresses that are named is asked. Give dashboards and the rules that record for them together.
    The exit status is 0 without findings other than warnings, 1 with findings, 2 where an argument is wrong.
    """
    fix = "llm-common check needs its extra; install it with: pip install 'llm_common[monitoring]'"
    with needing({"promql_parser", "yaml"}, fix):
        import llm_common.monitoring.checking.run  # noqa: F401 - everything that it needs
        from llm_common.monitoring.checking.rules import ALWAYS, RULES
    with ending("check"):
        if list_rules or explain is not None:
            write(described(None if list_rules else explain, RULES, "check"))
            return
        codes = chosen(select, ignore, RULES, ALWAYS, "check")
        status = run(paths or [], output, metrics or [], target_label or [], codes, timeout)
    raise typer.Exit(status)


def run(
    paths: Sequence[str],
    output: str,
    metrics: Sequence[str],
    target_labels: Sequence[str],
    codes: frozenset[str],
    timeout: float,
) -> int:
    """Do what the options say; return 1 where there are findings that aren't warnings, else 0."""
    from llm_common.monitoring.checking.run import check as findings_in
    from llm_common.monitoring.checking.run import with_metrics
    from llm_common.monitoring.checking.sources import sources
    from llm_common.monitoring.checking.vocabulary import vocabulary

    if not paths:
        raise ConfigurationError("there is nothing to check; name files, folders or addresses of pages (http://…)")
    settings = resolve({}, os.environ, find_pyproject(Path.cwd()))
    known = vocabulary(buckets=settings.buckets, target_labels=target_labels)
    known = with_metrics(known, sources(metrics), timeout)
    given = sys.stdin.buffer.read() if "-" in paths else b""
    found, files = findings_in(sources(paths, given), known, codes=codes, timeout=timeout)
    write(FORMATS[output](found, files))
    return int(any(not one.warning for one in found))
