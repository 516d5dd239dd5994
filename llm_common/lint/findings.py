"""What the linter says, and where."""

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
