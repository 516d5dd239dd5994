"""What the commands that report findings share."""

import sys

import typer

from llm_common.reporting.formats import FORMATS


def known_format(name: str) -> str:
    """Return ``name`` if it is a format; raise typer's usage error otherwise."""
    if name not in FORMATS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(FORMATS)}")
    return name


def write(text: str) -> None:
    """Write to standard output, with escapes for what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
