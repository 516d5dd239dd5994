"""``llm-common doctor``: what is wrong with an environment, a process, or a page that is served."""

from pathlib import Path
from typing import Annotated

import typer

from llm_common.cli.reports import Explain, Ignore, ListRules, Select, chosen, described, ending, format_option, write
from llm_common.doctor import environment
from llm_common.doctor.rules import ALWAYS, RULES
from llm_common.doctor.run import FORMATS, TIMEOUT, examine, looked_at
from llm_common.errors import ConfigurationError
from llm_common.metrics_server import checked_token


def doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL|PID…",
            help="Addresses of pages, and numbers of processes of this machine.",
            show_default="this environment and directory",
        ),
    ] = None,
    output: Annotated[str, format_option(FORMATS)] = "text",
    select: Select = None,
    ignore: Ignore = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the bearer token that the pages ask for.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long one answer may take, in seconds.")
    ] = TIMEOUT,
    explain: Explain = None,
    list_rules: ListRules = False,
) -> None:
    """Look at this environment, at processes or at served pages, and say what is wrong, with the fix.

    Backends and plugins that are configured are imported. A page is asked for some twenty times.
    The exit status is 0 without findings other than warnings, 1 with findings, 2 where an argument is wrong.
    """
    with ending("doctor"):
        if list_rules or explain is not None:
            write(described(None if list_rules else explain, RULES, "doctor"))
            return
        codes = chosen(select, ignore, RULES, ALWAYS, "doctor")
        token = read_token(token_file)
        found = (
            examine(targets, timeout=timeout, token=token, codes=codes)
            if targets
            else looked_at(environment.here(), codes)
        )
        write(FORMATS[output](found))
    raise typer.Exit(int(any(one.severity == "error" for one in found)))


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
