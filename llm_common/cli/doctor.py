"""``llm-common doctor``: what is wrong with an environment, a process, or a page that is served."""

from pathlib import Path
from typing import Annotated

import typer

from llm_common.cli.reports import write
from llm_common.doctor import environment
from llm_common.doctor.rules import ALWAYS, RULES
from llm_common.doctor.run import FORMATS, TIMEOUT, examine, looked_at
from llm_common.errors import ConfigurationError
from llm_common.metrics_server import checked_token
from llm_common.reporting.formats import explained
from llm_common.reporting.rules import expand


def known_format(name: str) -> str:
    """Return ``name`` if it is a format; raise typer's usage error otherwise."""
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(FORMATS)}")
    return name


def doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL|PID…",
            help="Addresses of pages, and numbers of processes of this machine.",
            show_default="this environment and directory",
        ),
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
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the bearer token that the pages ask for.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long one answer may take, in seconds.")
    ] = TIMEOUT,
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Say what a code means, and exit.")] = None,
    list_rules: Annotated[bool, typer.Option("--list", help="List the codes, and exit.")] = False,
) -> None:
    """Look at this environment, at processes or at served pages, and say what is wrong, with the fix.

    Backends and plugins that are configured are imported. A page is asked for some twenty times.
    The exit status is 0 without findings other than warnings, 1 with findings, 2 where an argument is wrong.
    """
    try:
        if list_rules:
            write("".join(f"{rule.code}  {rule.summary}\n" for rule in RULES.values()))
            return
        if explain is not None:
            codes = expand([explain], "the option --explain", RULES, "doctor")
            write("\n".join(explained(RULES[code]) for code in sorted(codes)))
            return
        chosen = ((meant("select", select) or frozenset(RULES)) | ALWAYS) - meant("ignore", ignore)
        token = read_token(token_file)
        found = (
            examine(targets, timeout=timeout, token=token, codes=chosen)
            if targets
            else looked_at(environment.here(), chosen)
        )
        write(FORMATS[output](found))
    except ConfigurationError as problem:
        typer.echo(f"llm-common doctor: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(int(any(one.severity == "error" for one in found)))


def meant(option: str, given: list[str] | None) -> frozenset[str]:
    """Return the codes that an option names."""
    return expand([one for text in given or () for one in text.split(",")], f"the option --{option}", RULES, "doctor")


def read_token(path: Path | None) -> str:
    """Return the token that a file has. Raises :class:`ConfigurationError`."""
    if path is None:
        return ""
    try:
        return checked_token(path.read_text(encoding="utf-8").strip())
    except UnicodeDecodeError:
        raise ConfigurationError(f"the option --token-file names {str(path)!r}, which isn't UTF-8") from None
    except OSError as problem:
        reason = problem.strerror or problem
        raise ConfigurationError(f"the option --token-file names {str(path)!r}: {reason}") from None
    except ValueError as problem:
        raise ConfigurationError(f"the option --token-file names {str(path)!r}: {problem}") from None
