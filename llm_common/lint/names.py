"""What the name of an action must look like."""

from typing import Any
from unicodedata import combining, normalize

from llm_common.action_names import SUFFIXES, snake_case, with_suffix

SHOWN = 60
"""How much of a name a message shows."""

Problem = tuple[str, str, str]
"""A code, a message and a fix."""


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def problem_of(name: Any) -> Problem | None:
    """Return what is wrong with a name, or ``None``."""
    if not isinstance(name, str):
        return "LC101", f"the name is {shown(name)}, not a text", "write a text in snake_case, such as 'menu_handler'"
    if not name:
        return "LC101", "the name is empty", "write a text in snake_case, such as 'menu_handler'"
    plain = name if name.isascii() else "".join(one for one in normalize("NFKD", name) if not combining(one))
    proper = snake_case(plain)
    if not proper or not plain.isascii():  # of other alphabets too little would be left
        return "LC101", f"the name {shown(name)} isn't in snake_case", "use the letters a to z, digits and _"
    if proper != name:
        return "LC101", f"the name {shown(name)} isn't in snake_case", f"write {shown(proper)}"
    for last in SUFFIXES:
        rest = name.removesuffix(last)
        for first in SUFFIXES:
            if rest != name and rest.endswith(first):
                other = rest.removesuffix(first) + last
                fix = f"write {shown(rest)}" if other == rest else f"write {shown(rest)} or {shown(other)}"
                return "LC102", f"the name {shown(name)} has two suffixes", fix
    return None


def has_suffix(name: str) -> bool:
    """Return whether a name says what kind of action it is for."""
    return any(with_suffix(name, suffix) == name for suffix in SUFFIXES)
