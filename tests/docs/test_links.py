"""Every link inside the repository leads somewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pages import ROOT, english, headings, read
from pages import links as targets

pytestmark = pytest.mark.once

SITE = yaml.safe_load(read(ROOT / "mkdocs.yml"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def links_inside() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in targets(page):
            if not target.startswith(("http://", "https://")):
                yield page, target


@pytest.mark.parametrize(
    ("page", "target"), [pytest.param(*one, id=f"{one[0].name}-{one[1]}") for one in links_inside()]
)
def test_a_link_leads_to_a_file_and_a_heading_that_exist(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.is_file()
    assert not anchor or anchor in {found for _, found in headings(file)}


def entries(items: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield the titles of the navigation, with the page where it is not a group."""
    for item in items:
        for title, inside in item.items():
            yield title, inside if isinstance(inside, str) else ""
            yield from () if isinstance(inside, str) else entries(inside)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    named = [page for _, page in entries(SITE["nav"]) if page]
    assert sorted(named) == sorted(page.name for page in english())


def test_every_title_in_the_navigation_is_translated() -> None:
    (i18n,) = (plugin["i18n"] for plugin in SITE["plugins"] if "i18n" in plugin)
    (russian,) = (one for one in i18n["languages"] if one["locale"] == "ru")
    translated = {*russian["nav_translations"], "API", "OpenTelemetry", "aioprometheus"}
    assert {title for title, _ in entries(SITE["nav"])} <= translated


def test_the_readme_links_every_page() -> None:
    assert {f"docs/{page.name}" for page in english()} <= set(targets(ROOT / "README.md"))
