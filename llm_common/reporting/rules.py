"""A rule as data, and the codes that stand for rules."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from textwrap import dedent

from llm_common.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a check looks for."""

    code: str
    """Two letters and three digits; the first of them is the group."""
    summary: str
    """What is wrong, in a few words."""
    why: str
    """What comes of it."""
    wrong: str
    """An example that has the finding, once."""
    right: str
    """The same without it."""
    warning: bool = False
    """Whether it may well be right, so that it doesn't make a check fail."""


def rule(code: str, summary: str, why: str, wrong: str, right: str, *, warning: bool = False) -> Rule:
    """Return a rule whose texts were written indented."""
    return Rule(
        code, summary, " ".join(why.split()), dedent(wrong).strip() + "\n", dedent(right).strip() + "\n", warning
    )


def expand(codes: Iterable[str], source: str, rules: Mapping[str, Rule], command: str) -> frozenset[str]:
    """Return the codes that codes and beginnings of codes mean: ``LC1`` is all of that group.

    Raises :class:`ConfigurationError` for one that stands for none of ``rules``; ``command`` shows them all.
    """
    found: set[str] = set()
    for one in codes:
        code = one.strip().upper()
        meant = [known for known in rules if code and known.startswith(code)]
        if code and not meant:
            raise ConfigurationError(
                f"{source} names {one.strip()!r}, which is no code{hint(code, rules)} "
                f"('llm-common {command} --list' shows them all)"
            )
        found.update(meant)
    return frozenset(found)


def hint(given: str, known: Collection[str]) -> str:
    """Return a question after the nearest of ``known``, or an empty text."""
    close = nearest(given, known)
    return f"; did you mean {close!r}?" if close else ""


def nearest(given: str, known: Collection[str]) -> str:
    """Return what of ``known`` is spelt most like ``given``, or an empty text."""
    return _nearest(given, tuple(known))


@lru_cache(maxsize=1024)  # the same mistake stands in many places, and comparing takes milliseconds
def _nearest(given: str, known: tuple[str, ...]) -> str:
    return next(iter(get_close_matches(given, known, n=1)), "")
