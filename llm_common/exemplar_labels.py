"""The labels of exemplars: what OpenMetrics allows, checked before a scrape could be spoiled by others."""

import re
from collections.abc import Mapping

from llm_common.errors import shown
from llm_common.settings import clean_label

MOST = 128
"""How many characters the names and values of an exemplar's labels have at most, together (OpenMetrics 1.0)."""

NAME = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")


def exemplar_labels(labels: object) -> dict[str, str]:
    """Return ``labels`` as an exemplar may have them.

    Raises :class:`TypeError` or :class:`ValueError` that says what is accepted.
    """
    if not isinstance(labels, Mapping):
        raise TypeError(f"{shown(labels)} are no labels of an exemplar; accepted: a mapping of names to texts, or None")
    checked: dict[str, str] = {}
    for name, value in labels.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(value, str):
            raise ValueError(
                f"{shown(name)}: {shown(value)} is no label of an exemplar; accepted: letters, digits and _ as the "
                "name, and a text"
            )
        checked[name] = clean_label(value)
    length = sum(len(name) + len(value) for name, value in checked.items())
    if length > MOST:
        raise ValueError(f"the labels of an exemplar have {length} characters together; accepted: up to {MOST}")
    return checked
