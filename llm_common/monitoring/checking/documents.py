"""Reading JSON and YAML with the places of their texts, without falling for what a file may do to its reader."""

import json
import re
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

import yaml

LONGEST_YAML = 4_000_000
"""In characters; a reader of YAML takes a second for each 200,000 or so."""

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class UnreadableError(ValueError):
    """A document can't be read: the message says why, the attributes where."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        """Say why, and the line and column, counted from 1."""
        super().__init__(message)
        self.line = line
        self.column = column


class Text(str):
    """A text of a YAML document, with the place where it begins."""

    __slots__ = ("column", "line")
    line: int
    column: int


class Places:
    """Where the texts of a document stand. Equal texts of JSON are asked for in the order of the document."""

    def __init__(self, text: str) -> None:
        """Look for places in ``text`` when the first is asked for."""
        self._text = text
        self._found: dict[str, deque[int]] | None = None
        self._lines: list[int] = []
        self._lines_as_text: list[str] = []

    def of(self, value: str) -> tuple[int, int]:
        """Return the line and column where a text of the document begins."""
        if isinstance(value, Text):
            return value.line, value.column
        if self._found is None:
            self._found = self._search()
        found = self._found.get(value)
        if not found:
            return 1, 1
        at = found.popleft() if len(found) > 1 else found[0]
        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def within(self, start: tuple[int, int], value: str, offset: int) -> tuple[int, int]:
        """Return the line and column of a place in a text that begins at ``start``, or the start if that can't be said.

        How it is written there isn't known: as it is, with the escapes of JSON, or in the lines of a YAML block.
        """
        line, column = start
        lines = self._split()
        before = value[:offset]
        for written in (before, json.dumps(before)[1:-1], json.dumps(before, ensure_ascii=False)[1:-1]):
            if lines[line - 1].startswith(written, column - 1):
                return line, column + len(written)
        below, last = line - 1 + before.count("\n"), before.rpartition("\n")[2]
        if below < len(lines) and lines[below].lstrip().startswith(last.lstrip()):
            return below + 1, lines[below].find(last.lstrip()) + len(last.lstrip()) + 1
        return start

    def _split(self) -> list[str]:
        if not self._lines_as_text:
            self._lines_as_text = self._text.split("\n")
        return self._lines_as_text

    def _search(self) -> dict[str, deque[int]]:
        self._lines = [0, *(one.end() for one in re.finditer("\n", self._text))]
        found: dict[str, deque[int]] = defaultdict(deque)
        for token in TOKEN.finditer(self._text):
            found[json.loads(token[0], strict=False)].append(token.start() + 1)
        return found


def read_json(text: str) -> Any:
    """Return what a JSON document has. Raises :class:`UnreadableError`."""
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as problem:
        raise UnreadableError(f"it isn't JSON: {problem.msg}", problem.lineno, problem.colno) from None
    except (RecursionError, ValueError) as problem:  # the second for a number of more digits than Python reads
        raise UnreadableError(f"it isn't JSON that can be read: {problem}") from None


class Loader(yaml.SafeLoader):
    """Reads texts with their places; what has a tag of its own is left out."""


def _text(loader: Loader, node: yaml.ScalarNode) -> Text:
    text = Text(loader.construct_scalar(node))
    block = node.style in {"|", ">"}  # the text of a block begins in the line after its mark
    text.line = node.start_mark.line + 1 + block
    text.column = 1 if block else node.start_mark.column + 1 + bool(node.style)
    return text


def _left_out(loader: Loader, tag: str, node: yaml.Node) -> None:
    return None


Loader.add_constructor("tag:yaml.org,2002:str", _text)
Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
Loader.add_multi_constructor("", _left_out)


def read_yaml(text: str) -> Iterator[Any]:
    """Yield the documents of a YAML file. Raises :class:`UnreadableError`."""
    if len(text) > LONGEST_YAML:
        raise UnreadableError(f"it has more than {LONGEST_YAML:,} characters")
    try:
        yield from yaml.load_all(text, Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise UnreadableError(f"it isn't YAML: {problem.problem}", *place) from None
    except (yaml.YAMLError, ValueError, TypeError) as problem:
        raise UnreadableError(f"it isn't YAML: {str(problem).splitlines()[0]}") from None
    except RecursionError:
        raise UnreadableError("it isn't YAML that can be read: it is nested too deep") from None
