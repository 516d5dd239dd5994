"""The page about the linter says what the linter does."""

import re
from pathlib import Path

import pytest
import typer.main

from llm_common.cli.app import app
from llm_common.lint.config import OPTIONS, Config
from llm_common.lint.files import SKIPPED, standard_input
from llm_common.lint.rules import RULES
from llm_common.lint.run import lint
from llm_common.reporting.formats import FORMATS
from llm_common.reporting.rules import Rule

pytestmark = pytest.mark.once

PAGE = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title."""
    table = PAGE.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_table_of_rules_lists_them_all() -> None:
    expected = [[f"[`{code}`](#{code.lower()})", rule.summary] for code, rule in RULES.items()]
    assert [[cell.strip() for cell in row] for row in rows("code")] == expected


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_section_of_a_rule_says_what_the_rule_says(rule: Rule) -> None:
    assert (
        f"### {rule.code}\n\nReports {rule.summary}.\n\n{rule.why}\n\n"
        f"Wrong:\n\n```text\n{rule.wrong}```\n\nRight:\n\n```text\n{rule.right}```\n"
    ) in PAGE


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_examples_of_a_rule_are_wrong_once_and_right(rule: Rule) -> None:
    assert [one.code for one in lint([standard_input(rule.wrong.encode(), "shop.py")], Config())] == [rule.code]
    assert lint([standard_input(rule.right.encode(), "shop.py")], Config()) == []


def test_there_are_no_sections_of_rules_that_do_not_exist() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(RULES)


def test_the_table_of_settings_lists_them_all() -> None:
    assert [row[0] for row in rows("setting")] == [f"`{option}`" for option in OPTIONS]


def test_the_table_of_options_lists_them_all() -> None:
    command = typer.main.get_command(app).commands["lint"]  # type: ignore[attr-defined]
    options = [parameter.opts[0] for parameter in command.params if parameter.name != "paths"]
    assert [row[0] for row in rows("option")] == ["`PATHS`", *(f"`{option}`" for option in options)]
    assert all(f"`{name}`" in rows("option")[1][1] for name in FORMATS)


def test_the_page_names_the_folders_that_are_not_searched() -> None:
    assert all(f"`{name}`" in PAGE for name in SKIPPED)


def test_the_report_that_the_page_shows_is_one_of_the_linter() -> None:
    report = re.findall(r"^shop/bot.py:\d+:\d+: (LC\d+ .*)$", PAGE, re.MULTILINE)
    code = RULES["LC201"].wrong + RULES["LC301"].wrong
    assert [f"{one.code} {one.text}" for one in lint([standard_input(code.encode(), "a.py")], Config())] == report
