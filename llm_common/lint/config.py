"""The configuration: ``[tool.llm_common.lint]`` in ``pyproject.toml``, and the options that go before it."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llm_common.errors import ConfigurationError
from llm_common.lint.rules import ALWAYS, RULES
from llm_common.reporting.rules import expand, hint
from llm_common.settings import Pyproject

TABLE = "tool.llm_common.lint"
OPTIONS = ("select", "ignore", "exclude", "per-file-ignores", "narrow-excepts")


@dataclass(frozen=True, slots=True)
class Config:
    """What is reported, and of which files."""

    codes: frozenset[str] = frozenset(RULES)
    """The rules in force."""
    exclude: tuple[str, ...] = ()
    """Patterns of files that folders are searched without."""
    per_file_ignores: tuple[tuple[str, frozenset[str]], ...] = ()
    """Patterns of files, each with the codes that don't apply to them."""
    narrow_excepts: bool = False
    """Whether LC301 also reports clauses that name what they catch."""
    root: str = ""
    """The folder that patterns are relative to; empty for the working directory."""

    def excludes(self, path: str) -> bool:
        """Return whether ``path``, which is absolute, or a folder that it is in is excluded."""
        return any(self._matches(pattern, path) for pattern in self.exclude)

    def codes_for(self, path: str) -> frozenset[str]:
        """Return the rules in force for a file."""
        ignored = [codes for pattern, codes in self.per_file_ignores if self._matches(pattern, path)]
        return self.codes.difference(*ignored)

    def _matches(self, pattern: str, path: str) -> bool:
        root = self.root or os.getcwd()
        try:
            relative = os.path.relpath(path, root).replace(os.sep, "/")
        except ValueError:  # pragma: no cover - another drive, which only Windows has
            return False
        return bool(compiled(pattern).match(relative))


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of files as an expression: ``*`` and ``?`` stop at a slash, ``**`` doesn't.

    One without a slash is for a name in any folder; one of a folder is for everything in it.
    """
    pattern = pattern.rstrip("/")
    inner = pattern.removeprefix("./")
    start = "" if "/" in pattern else "(?:.*/)?"
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])", inner.removeprefix("/"))
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = ""
    for part in parts:
        is_set = part.startswith("[") and part.endswith("]") and len(part) > 2
        text += special.get(part) or (part.replace("[!", "[^").replace("\\", "\\\\") if is_set else re.escape(part))
    try:
        return re.compile(f"{start}{text}(?:/.*)?$", re.DOTALL)
    except re.error as problem:
        raise ConfigurationError(f"the pattern {pattern!r} of [{TABLE}] can't be read: {problem}") from None


def configured(pyproject: Pyproject | None, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Config:
    """Return the configuration that a ``pyproject.toml`` and the options of the command line make.

    ``select`` replaces that of the file, ``ignore`` adds to it. Raises :class:`ConfigurationError` for what can't be
    read, and for a setting or code that doesn't exist.
    """
    table: Any = pyproject.table.get("lint", {}) if pyproject else {}
    path = pyproject.path if pyproject else Path("pyproject.toml")
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"[{TABLE}] in {path} is {table!r}; it must be a table")
    for key in table:
        if key not in OPTIONS:
            raise ConfigurationError(
                f"[{TABLE}] in {path} has an unknown setting {key!r}{hint(key, OPTIONS)} "
                f"(accepted: {', '.join(OPTIONS)})"
            )
    narrow = table.get("narrow-excepts", False)
    if not isinstance(narrow, bool):
        raise ConfigurationError(f"narrow-excepts in [{TABLE}] of {path} is {narrow!r}; accepted: true or false")
    per_file = table.get("per-file-ignores", {})
    if not isinstance(per_file, Mapping):
        raise ConfigurationError(
            f"per-file-ignores in [{TABLE}] of {path} is {per_file!r}; accepted: a table of lists of codes by pattern"
        )

    def codes(name: str) -> frozenset[str]:
        return meant(texts(table.get(name, []), source(name)), source(name))

    def source(name: str) -> str:
        return f"{name} in [{TABLE}] of {path}"

    def option(name: str, given: Iterable[str]) -> frozenset[str]:
        return meant([one for text in given for one in text.split(",")], f"the option --{name}")

    selected = option("select", select) or codes("select") or frozenset(RULES)
    found = Config(
        (selected | ALWAYS) - codes("ignore") - option("ignore", ignore),
        tuple(texts(table.get("exclude", []), source("exclude"))),
        tuple(
            (
                pattern,
                meant(texts(value, source(f"per-file-ignores.{pattern}")), source(f"per-file-ignores.{pattern}")),
            )
            for pattern, value in per_file.items()
        ),
        narrow,
        str(pyproject.path.parent) if pyproject else "",
    )
    for pattern in (*found.exclude, *(pattern for pattern, _ in found.per_file_ignores)):
        compiled(pattern)  # so that what is wrong with it shows now
    return found


def texts(value: object, source: str) -> list[str]:
    """Return a list of texts as it was read."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigurationError(f"{source} is {value!r}; accepted: a list of texts")
    return value


def meant(codes: Iterable[str], source: str) -> frozenset[str]:
    """Return the linter's codes that codes and beginnings of codes mean."""
    return expand(codes, source, RULES, "lint")
