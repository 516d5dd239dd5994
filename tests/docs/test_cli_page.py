"""The page about the command line lists every command, with every option and its default."""

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from llm_common.cli.app import app
from pages import ROOT, read

pytestmark = pytest.mark.once

PAGE = read(ROOT / "docs" / "cli.md")
PROGRAM: Any = typer.main.get_command(app)


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its name."""
    for word, command in group.commands.items():
        whole = f"{name} {word}".lstrip()
        yield from commands(command, whole) if hasattr(command, "commands") else [(whole, command)]


COMMANDS = dict(commands(PROGRAM))


def row(parameter: Any) -> str:
    """Return the row of the table for one option or argument."""
    if parameter.opts[0].startswith("-"):
        spelt = [*parameter.opts, *parameter.secondary_opts]
    else:
        spelt = [(parameter.metavar or parameter.name.upper()).replace("|", r"\|")]
    default = parameter.default
    if isinstance(parameter.show_default, str):
        shown = parameter.show_default
    elif default is None or default is False:
        shown = ""
    else:
        shown = f"`{default:g}`" if isinstance(default, int | float) else f"`{default}`"
    return f"| {', '.join(f'`{one}`' for one in spelt)} | {shown} | {parameter.help} |\n"


def table(parameters: list[Any]) -> str:
    return "| option | default | what it is |\n|---|---|---|\n" + "".join(row(one) for one in parameters)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_has_a_table_of_all_its_options(name: str) -> None:
    section = PAGE.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    assert section.rstrip("\n") + "\n" == section.split("| option |")[0] + table(COMMANDS[name].params)


def test_the_options_of_the_program_itself_have_a_table() -> None:
    assert f"\n\n{table(PROGRAM.params)}\n" in PAGE


def test_the_table_of_commands_has_them_all_with_the_extra_that_each_needs() -> None:
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    rows = [line.strip("| ").split(" | ") for line in PAGE.split("|---|---|---|\n", 1)[1].split("\n\n")[0].splitlines()]
    assert [(name, does) for name, _, does in rows] == [
        (f"[`{name}`](#{name.replace(' ', '-')})", command.help.split("\n\n")[0]) for name, command in COMMANDS.items()
    ]
    assert {extra.strip("`") for _, extra, _ in rows} <= set(extras)
