"""Keeps the two languages of the site apart where the theme doesn't: each has a search of its own."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

RUSSIAN = "ru/"
ALTERNATE = re.compile(r'<link rel="alternate" [^>]*hreflang=[^>]*>\s*')


def on_post_page(html: str, page: Any, **_: Any) -> str:
    """Let the search of a page in Russian begin at the root of its language. MkDocs calls it for each page.

    Drops the links for machines to the other languages as well: the theme would ask for a sitemap beside each page, to
    find there the same page in the other language, to which the links that people see lead already.
    """
    html = ALTERNATE.sub("", html)
    if page.url.startswith(RUSSIAN):
        html = re.sub(r'"base": "(?:\.\./([./]+)|\.\.)"', lambda base: f'"base": "{base[1] or "."}"', html)
    return html


@event_priority(-200)  # after the plugin that builds both languages and writes what is found in them into one file
def on_post_build(config: Any, **_: Any) -> None:
    """Divide what the search finds between the languages. MkDocs calls it when the site is built."""
    whole = Path(config.site_dir) / "search" / "search_index.json"
    index = json.loads(whole.read_text(encoding="utf-8"))
    found: dict[str, list[Any]] = {"": [], RUSSIAN: []}
    for one in index["docs"]:
        found[RUSSIAN if one["location"].startswith(RUSSIAN) else ""].append(one)
    for prefix, docs in found.items():
        path = Path(config.site_dir) / prefix / "search" / "search_index.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        within = [{**one, "location": one["location"].removeprefix(prefix)} for one in docs]
        path.write_text(json.dumps({**index, "docs": within}, ensure_ascii=False), encoding="utf-8")
