"""The text of a file, in which nodes of its tree have their places."""

import ast
from dataclasses import dataclass

from llm_common.reporting.findings import Place


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
