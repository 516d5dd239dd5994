"""The page about the doctor says what the doctor does."""

import re
from pathlib import Path
from typing import cast

import pytest
import typer.main

from llm_common.cli.app import app
from llm_common.doctor import endpoint
from llm_common.doctor.endpoint import LOOKS as OF_PAGES
from llm_common.doctor.environment import ENVS
from llm_common.doctor.environment import LOOKS as OF_ENVIRONMENTS
from llm_common.doctor.rules import CHECKS, RULES
from llm_common.doctor.run import FORMATS, TIMEOUT, Result, Severity, as_text
from llm_common.reporting.rules import Rule

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title."""
    table = PAGE.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_table_of_checks_lists_them_all_and_what_they_look_at() -> None:
    def looked_at(code: str) -> str:
        either = {"an environment": code in OF_ENVIRONMENTS, "a page": code in OF_PAGES}
        return ", ".join(what for what, is_one in either.items() if is_one) or "a process, a page"

    expected = [
        [f"[`{code}`](#{code.lower()})", rule.summary + " (warning)" * rule.warning, looked_at(code)]
        for code, rule in RULES.items()
    ]
    assert rows("code") == expected


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_section_of_a_check_says_what_the_check_says(rule: Rule) -> None:
    assert (
        f"### {rule.code}\n\n{'Warns of' if rule.warning else 'Reports'} {rule.summary}.\n\n{rule.why}\n\n"
        f"Wrong:\n\n```text\n{rule.wrong}```\n\nRight:\n\n```text\n{rule.right}```\n"
    ) in PAGE


def test_there_are_no_sections_of_checks_that_do_not_exist() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(RULES)


def test_every_check_looks_at_something() -> None:
    assert {*OF_ENVIRONMENTS, *OF_PAGES, "DR401"} == set(CHECKS)


def test_the_table_of_options_lists_them_all() -> None:
    command = typer.main.get_command(app).commands["doctor"]  # type: ignore[attr-defined]
    options = [parameter.opts[0] for parameter in command.params if parameter.name != "targets"]
    assert [row[0] for row in rows("option")] == [r"`URL\|PID…`", *(f"`{option}`" for option in options)]
    assert all(f"`{name}`" in rows("option")[1][1] for name in FORMATS)
    assert f"{TIMEOUT:g} by default" in PAGE


def test_the_page_names_the_limits() -> None:
    asked = endpoint.ALONE + endpoint.ROUNDS * endpoint.AT_ONCE
    assert f"{asked} times" in PAGE
    assert f"{endpoint.AT_ONCE} at once" in PAGE
    assert f"from {endpoint.SLOW:g} second on" in PAGE
    assert f"more than {endpoint.DRIFT:g} seconds" in PAGE
    assert (endpoint.WORTH_WAITING, "quarter of a second" in PAGE) == (0.25, True)
    assert all(f"`{env}`" in PAGE for env in ENVS)
    assert f"`{endpoint.NOWHERE}`" in PAGE


def test_the_report_that_the_page_shows_has_the_form_of_one() -> None:
    shown = PAGE.split("```text\n", 1)[1].split("```", 1)[0]
    lines = shown.splitlines()
    results = []
    for line in lines[1:-1]:
        severity, code, message = re.fullmatch(r"  (\w+) +(DR\d+)  (.*)", line).groups()  # type: ignore[union-attr]
        if severity == "ok":
            assert message == CHECKS[code].fine
        else:
            assert severity == ("warning" if RULES[code].warning else "error")
        results.append(Result(lines[0], code, cast("Severity", severity), message))
    assert as_text(results) == shown
