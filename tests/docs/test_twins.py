"""Each page in English has its twin in Russian, which shows the same code, numbers and links in the same order."""

import re
from pathlib import Path

import pytest

from pages import ROOT, RUSSIAN, code, english, headings, links, prose, rows, shapes, twin

pytestmark = pytest.mark.once

QUOTED = "monitoring"
"""The page that was written in Russian first: comments in its code are in the language of the page."""

each_page = pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in english()])


def test_every_page_has_its_twin_and_no_twin_is_alone() -> None:
    russian = {page.name.removesuffix(RUSSIAN) for page in (ROOT / "docs").glob(f"*{RUSSIAN}")}
    assert russian == {page.stem for page in english()}


@each_page
def test_headings_have_the_same_levels_and_anchors(page: Path) -> None:
    assert headings(twin(page)) == headings(page)


@each_page
def test_code_is_the_same(page: Path) -> None:
    assert [without_comments(page, one) for one in code(twin(page))] == [
        without_comments(page, one) for one in code(page)
    ]


@each_page
def test_links_lead_to_the_same_places(page: Path) -> None:
    assert sorted(links(twin(page))) == sorted(links(page))


@each_page
def test_tables_have_the_same_cells_with_the_same_code_and_numbers(page: Path) -> None:
    assert [[literals(cell) for cell in row] for row in rows(twin(page))] == [
        [literals(cell) for cell in row] for row in rows(page)
    ]


@each_page
def test_sections_have_as_many_paragraphs_and_items_and_the_same_numbers(page: Path) -> None:
    assert dict(zip(headings(twin(page)), shapes(twin(page))[1:], strict=True)) == dict(
        zip(headings(page), shapes(page)[1:], strict=True)
    )


@each_page
def test_the_twin_is_in_russian_and_the_page_in_english(page: Path) -> None:
    assert share_of_cyrillic(twin(page)) > 0.6
    assert share_of_cyrillic(page) == 0


def test_the_readme_has_its_twin_with_the_same_sections_code_and_links() -> None:
    page = ROOT / "README.md"
    assert [level for level, _ in headings(twin(page))] == [level for level, _ in headings(page)]
    assert code(twin(page)) == code(page)
    expected = [re.sub(r"^(docs/.*)\.md$", r"\1.ru.md", link) for link in links(page) if link != "README.ru.md"]
    assert sorted(links(twin(page))) == sorted([*expected, "README.md"])
    assert share_of_cyrillic(twin(page)) > 0.6


def without_comments(page: Path, block: str) -> str:
    return re.sub(r"# .*", "#", block) if page.stem == QUOTED else block


def literals(cell: str) -> list[str]:
    """Return what a cell has in any language: code, and the digits of numbers."""
    return sorted(re.findall(r"`[^`]+`|\d", cell))


def share_of_cyrillic(page: Path) -> float:
    """Return which part of the letters are Cyrillic, outside of code and links."""
    plain = re.sub(r"`[^`]+`|\]\([^)]*\)|\{:? *#.*?\}|^:::.*(?:\n +.*)*", "", prose(page), flags=re.MULTILINE)
    letters = re.findall(r"[^\W\d_]", plain)
    return len([letter for letter in letters if "Ѐ" <= letter <= "ӿ"]) / len(letters)
