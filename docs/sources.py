"""Publishes the source of each page beside the site, where llms.txt links it."""

import shutil
from pathlib import Path
from typing import Any


def on_post_build(config: Any, **_: Any) -> None:
    """Copy the pages as they were written. MkDocs calls it when the site is built."""
    for page in Path(config.docs_dir).glob("*.md"):
        shutil.copy(page, config.site_dir)
