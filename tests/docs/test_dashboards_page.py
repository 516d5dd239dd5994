"""The page about dashboards and alerts says what the export does."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from llm_common.cli.app import app
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.configuration import READERS, configured
from llm_common.monitoring.options import Objectives, Options, Thresholds
from llm_common.settings import Pyproject

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "dashboards.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title."""
    table = PAGE.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_table_of_alerts_lists_them_all() -> None:
    assert [[name, *rest] for name, _, *rest in rows("alert")] == [
        [f"[{one.name}](runbooks.md#{one.name.lower()})", one.for_, one.severity] for one in alerts(Options())
    ]


def test_the_table_of_thresholds_lists_them_all_with_their_defaults() -> None:
    assert [row[:2] for row in rows("threshold")] == [
        [f"`{one.name}`", f"{one.default:g}"] for one in fields(Thresholds)
    ]


def test_the_objectives_are_named_with_their_defaults() -> None:
    assert all(f"`--objective {one.name}={one.default:g}`" in PAGE for one in fields(Objectives))


def test_the_table_of_options_lists_them_all() -> None:
    group: Any = typer.main.get_command(app)
    command = group.commands["monitoring"].commands["export"]
    options = [parameter.opts[0] for parameter in command.params if parameter.name != "folder"]
    assert [row[0] for row in rows("option")] == ["`DIR`", *(f"`{option}`" for option in options)]


def test_the_table_of_pyproject_has_every_setting_and_can_be_read() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    table = tomllib.loads(block)["tool"]["llm_common"]
    assert set(table["monitoring"]) == set(READERS)
    assert configured(Pyproject(Path("pyproject.toml"), table), {}).chats == (("shop_bot", -100987),)
