"""Regular expressions of matchers: their alternatives, and whether any value matches one.

Prometheus matches with RE2, which takes no more time than the text is long. Python's expressions do, so what could take
long is not judged.
"""

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache

SPECIAL = frozenset("\\.+*?()|[]{}^$")
QUANTIFIERS = re.compile(r"[*+?{]")
FLAGS = re.compile(r"\(\?[a-zA-Z]+\)")
MOST_QUANTIFIERS = 4
"""An expression with more of them isn't judged, nor is one that repeats a group."""


def alternatives(pattern: str) -> list[str]:
    """Return what a pattern offers at its top level, without anchors and brackets around all of it."""
    flags = FLAGS.match(pattern)
    if flags:
        return [flags[0] + one for one in alternatives(pattern[flags.end() :])]
    whole = pattern.removeprefix("^")
    if whole.endswith("$") and not whole.endswith("\\$"):
        whole = whole[:-1]
    parts, ends = split(whole)
    inner = whole.removeprefix("(").removeprefix("?:")
    if len(parts) == 1 and whole.startswith("(") and ends == [len(whole) - 1] and not inner.startswith("?"):
        return alternatives(inner[:-1])
    return parts


def split(pattern: str) -> tuple[list[str], list[int]]:
    """Return what ``|`` separates outside of brackets, and where brackets end that are in no others."""
    parts: list[str] = []
    ends: list[int] = []
    start, depth, escaped, in_set = 0, 0, False, False
    for at, one in enumerate(pattern):
        if escaped or one == "\\":
            escaped = not escaped
        elif in_set or one == "[":
            in_set = one != "]"
        elif one in "()":
            depth += 1 if one == "(" else -1
            if depth == 0:
                ends.append(at)
        elif one == "|" and depth == 0:
            parts.append(pattern[start:at])
            start = at + 1
    return [*parts, pattern[start:]], ends


def literal(pattern: str) -> str | None:
    """Return the only text that a pattern matches, or ``None`` where it may match others."""
    text, escaped = "", False
    for one in pattern:
        if escaped and one.isalnum():
            return None
        if not escaped and one == "\\":
            escaped = True
            continue
        if not escaped and one in SPECIAL:
            return None
        text, escaped = text + one, False
    return text


@lru_cache(maxsize=1024)
def matches_any(pattern: str, values: frozenset[str]) -> bool | None:
    """Return whether a pattern matches one of ``values`` as a whole; ``None`` where that can't be said."""
    compiled = cheap(pattern)
    return None if compiled is None else any(compiled.fullmatch(value) for value in values)


def matching(pattern: str, values: Iterable[str]) -> list[str] | None:
    """Return the values that a pattern matches as a whole; ``None`` where that can't be said."""
    compiled = cheap(pattern)
    return None if compiled is None else [value for value in values if compiled.fullmatch(value)]


def cheap(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern that takes little time on short texts, or ``None`` where it may take long or isn't Python's."""
    repeated = any(f"){one}" in pattern for one in "*+?{")
    if repeated or len(QUANTIFIERS.findall(pattern.replace("(?", "("))) > MOST_QUANTIFIERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # where Python isn't sure what is meant, RE2 may mean something else
            return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError, RecursionError, FutureWarning):
        return None
