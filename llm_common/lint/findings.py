"""What the linter says, and where."""

import ast
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a file. Lines and columns are counted from 1, columns in characters; the end is exclusive."""

    path: str
    """The file, as reports show it."""
    line: int = 1
    column: int = 1
    end_line: int = 1
    end_column: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text, with what is needed to tell places in it."""

    path: str
    """Absolute."""
    shown: str
    """As reports have it."""
    lines: list[str]

    def place(self, node: ast.AST) -> Place:
        """Return where a node stands."""
        line, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        return Place(
            self.shown,
            line,
            self._column(line, getattr(node, "col_offset", 0)),
            end,
            self._column(end, getattr(node, "end_col_offset", 0)),
        )

    def _column(self, line: int, offset: int) -> int:
        """Return a column in characters for one in bytes of UTF-8."""
        text = self.lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to mend. Findings sort by file, line and column, then by code."""

    path: str
    line: int
    column: int
    code: str
    message: str
    """What is wrong, without a full stop."""
    fix: str
    """What to do about it, as an order."""
    end_line: int = field(compare=False)
    end_column: int = field(compare=False)

    @property
    def text(self) -> str:
        """The message with its fix."""
        return f"{self.message}; {self.fix}"


def finding(place: Place, code: str, message: str, fix: str) -> Finding:
    """Return a finding at ``place``."""
    return Finding(place.path, place.line, place.column, code, message, fix, place.end_line, place.end_column)
