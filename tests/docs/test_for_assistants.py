"""What is written for coding assistants is true, and names every page."""

import importlib
import re

import pytest

from llm_common.lint.rules import RULES
from llm_common.testing.strategies import SUFFIXES
from pages import ROOT, english, read, rows

pytestmark = pytest.mark.once

AGENTS = ROOT / "AGENTS.md"


def test_the_index_for_models_names_every_page_under_its_title_in_the_navigation() -> None:
    index = read(ROOT / "docs" / "llms.txt")
    listed = re.findall(r"^- \[(.+)\]\((.+\.md)\): .", index, re.MULTILINE)
    assert sorted(page for _, page in listed) == sorted(page.name for page in english())
    navigation = read(ROOT / "mkdocs.yml")
    assert all(f"- {title}: {page}\n" in navigation for title, page in listed)


def test_the_rules_name_the_suffixes() -> None:
    rules = read(AGENTS).split("## Rules\n", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"`(_\w+)`", rules)) == set(SUFFIXES)


def test_the_codes_of_the_linter_exist() -> None:
    assert set(re.findall(r"\((LC\d+)\)", read(AGENTS))) <= set(RULES)


def test_what_one_line_needs_can_be_imported() -> None:
    table = [row for row in rows(AGENTS) if "llm_common.integrations." in row[2]]
    assert len(table) == len(rows(AGENTS)) - 2
    for _, line, module in table:
        names = set(re.findall(r"\w+", line)) & set(vars(importlib.import_module(module.strip("`"))))
        assert names, line
