"""Shows the cross-references of docstrings, such as :class:`TypeError`, as plain code on the site."""

import re
from typing import Any

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):(<code>)~?([\w.]+)(</code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Drop the role and, of a dotted name, all but the last part. MkDocs calls it for each page."""
    return ROLE.sub(lambda role: role[1] + role[2].rpartition(".")[2] + role[3], html)
