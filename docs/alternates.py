"""Leaves out what makes the theme ask for a sitemap beside each page, where there is none.

The theme looks there for the same page in the other language; the links of this site lead to it already.
"""

import re
from typing import Any

ALTERNATE = re.compile(r'<link rel="alternate" [^>]*hreflang=[^>]*>\s*')


def on_post_page(html: str, **_: Any) -> str:
    """Drop the links for machines to the other languages. MkDocs calls it for each page."""
    return ALTERNATE.sub("", html)
