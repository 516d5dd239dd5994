"""The page about the check says what the check does."""

import re
from pathlib import Path

import pytest
import typer.main

from checking import findings
from llm_common.cli.app import app
from llm_common.monitoring.checking.patterns import MOST_QUANTIFIERS
from llm_common.monitoring.checking.rules import RULES
from llm_common.monitoring.checking.run import TIMEOUT
from llm_common.monitoring.checking.text import LONGEST
from llm_common.reporting.formats import FORMATS
from llm_common.reporting.rules import Rule

pytestmark = pytest.mark.once

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title."""
    table = PAGE.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_table_of_rules_lists_them_all() -> None:
    expected = [
        [f"[`{code}`](#{code.lower()})", rule.summary + " (warning)" * rule.warning] for code, rule in RULES.items()
    ]
    assert rows("code") == expected


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_section_of_a_rule_says_what_the_rule_says(rule: Rule) -> None:
    assert (
        f"### {rule.code}\n\n{'Warns of' if rule.warning else 'Reports'} {rule.summary}.\n\n{rule.why}\n\n"
        f"Wrong:\n\n```text\n{rule.wrong}```\n\nRight:\n\n```text\n{rule.right}```\n"
    ) in PAGE


def test_there_are_no_sections_of_rules_that_do_not_exist() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(RULES)


def test_the_table_of_options_lists_them_all() -> None:
    command = typer.main.get_command(app).commands["check"]  # type: ignore[attr-defined]
    options = [parameter.opts[0] for parameter in command.params if parameter.name != "paths"]
    assert [row[0] for row in rows("option")] == [r"`FILE\|URL…`", *(f"`{option}`" for option in options)]
    assert all(f"`{name}`" in rows("option")[1][1] for name in FORMATS)
    assert f"{TIMEOUT:g} by default" in PAGE


def test_the_page_names_the_limits() -> None:
    assert f"Expressions of more than {LONGEST:,} characters" in PAGE
    assert MOST_QUANTIFIERS == 4
    assert "more than four quantifiers" in PAGE


def test_the_report_that_the_page_shows_is_one_of_the_check() -> None:
    place, code, message = re.findall(r"^rules/shop.yml:(\d+:\d+): (MC\d+) (.*)$", PAGE, re.MULTILINE)[0]
    expression = re.findall(r"^    (sum by .*)$", PAGE, re.MULTILINE)[0]
    (found,) = findings(
        f"groups:\n  - name: shop\n    rules:\n      - alert: ActionsFail\n        expr: {expression}\n"
    )
    assert (f"{found.line}:{found.column}", found.code, found.text) == (place, code, message)
    assert f"\n    {expression}\n    {' ' * found.offset}^\n" in PAGE
