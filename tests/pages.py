"""The pages of the documentation, and what they are made of."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUSSIAN = ".ru.md"

FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HEADING = re.compile(r"^(#+) (.+?)(?: \{:? *#([\w-]+) *\})?$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def english() -> list[Path]:
    """Return the pages of the site that are written in English."""
    return [page for page in sorted(ROOT.glob("docs/*.md")) if not page.name.endswith(RUSSIAN)]


def twin(page: Path) -> Path:
    """Return where the same page in Russian is."""
    return page.with_suffix(RUSSIAN)


def read(page: Path) -> str:
    """Return the whole text of a page."""
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its code blocks and comments."""
    return COMMENT.sub("", FENCED.sub("", read(page)))


def code(page: Path) -> list[str]:
    """Return the code blocks, with their fences."""
    return [block[0] for block in FENCED.finditer(COMMENT.sub("", read(page)))]


def headings(page: Path) -> list[tuple[int, str]]:
    """Return the level and the anchor of each heading, as the site makes them."""
    return [(len(marks), anchor or slug(title)) for marks, title, anchor in HEADING.findall(prose(page))]


def slug(title: str) -> str:
    """Return the anchor of a heading that names none."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def links(page: Path) -> list[str]:
    """Return the targets of the links, in order."""
    return LINK.findall(prose(page))


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all rows of tables, in order."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def shapes(page: Path) -> list[tuple[int, int, str]]:
    """Return for each section how many paragraphs and list items it has, and the digits of its numbers."""
    sections = [HEADING.split(prose(page))[0], *HEADING.split(prose(page))[4::4]]
    return [
        (
            len([part for part in re.split(r"\n\s*\n", section) if part.strip()]),
            len(re.findall(r"^ *(?:[-*]|\d{1,2}\.) ", section, re.MULTILINE)),
            "".join(sorted(re.findall(r"\d", LINK.sub("", section)))),
        )
        for section in sections
    ]
