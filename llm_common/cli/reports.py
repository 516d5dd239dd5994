"""What the commands that report findings by code share: their options, and what they print."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from llm_common.errors import ConfigurationError
from llm_common.reporting.formats import explained
from llm_common.reporting.rules import Rule, expand

Select = Annotated[
    list[str] | None, typer.Option(help="Only these codes, or beginnings of codes, separated by commas.")
]
Ignore = Annotated[list[str] | None, typer.Option(help="Not these codes, or beginnings of codes, separated by commas.")]
Explain = Annotated[str | None, typer.Option(metavar="CODE", help="Say what a code means, and exit.")]
ListRules = Annotated[bool, typer.Option("--list", help="List the codes, and exit.")]


def format_option(formats: Collection[str]) -> typer.models.OptionInfo:
    """Return the option ``--format``, which takes one of ``formats``; another one is typer's usage error."""

    def known(name: str) -> str:
        if name not in formats:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(formats)}")
        return name

    option: typer.models.OptionInfo = typer.Option(
        "--format", callback=known, help=f"How to report: {', '.join(formats)}."
    )
    return option


def described(code: str | None, rules: Mapping[str, Rule], command: str) -> str:
    """Return all that there is to say about the codes that ``code`` begins, or a list of all where it is ``None``.

    Raises :class:`ConfigurationError` for what is no code; ``command`` lists them.
    """
    if code is None:
        return "".join(f"{rule.code}  {rule.summary}\n" for rule in rules.values())
    return "\n".join(explained(rules[one]) for one in sorted(expand([code], "the option --explain", rules, command)))


def chosen(
    select: Sequence[str] | None,
    ignore: Sequence[str] | None,
    rules: Mapping[str, Rule],
    always: frozenset[str],
    command: str,
) -> frozenset[str]:
    """Return the codes that the options leave: all without ``select``, those of ``always`` unless they are ignored.

    Raises :class:`ConfigurationError` for what is no code; ``command`` lists them.
    """

    def meant(option: str, given: Sequence[str] | None) -> frozenset[str]:
        codes = [one for text in given or () for one in text.split(",")]
        return expand(codes, f"the option --{option}", rules, command)

    return ((meant("select", select) or frozenset(rules)) | always) - meant("ignore", ignore)


@contextmanager
def ending(command: str) -> Iterator[None]:
    """End the process as ``command`` does: with status 2 and one line for what is wrong, with 130 where interrupted."""
    try:
        yield
    except ConfigurationError as problem:
        typer.echo(f"llm-common {command}: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def write(text: str) -> None:
    """Write to standard output, with escapes for what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
