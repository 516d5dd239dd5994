"""What a check says, and where."""

import os
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
    subject: str = field(default="", compare=False)
    """What of the file it is about, such as the title of a panel; empty where the place says it all."""
    excerpt: str = field(default="", compare=False)
    """The text in question where the place alone doesn't show it, such as an expression in JSON."""
    offset: int = field(default=0, compare=False)
    """Where in the excerpt, in characters."""
    warning: bool = field(default=False, compare=False)
    """Whether it may well be right, so that it doesn't make the check fail."""

    @property
    def text(self) -> str:
        """The message with its fix, and what it is about."""
        return f"{self.subject}: {self.message}; {self.fix}" if self.subject else f"{self.message}; {self.fix}"


def finding(place: Place, code: str, message: str, fix: str) -> Finding:
    """Return a finding at ``place``."""
    return Finding(place.path, place.line, place.column, code, message, fix, place.end_line, place.end_column)


def shown(path: str) -> str:
    """Return a path for reports: from the working directory where it is inside, with slashes."""
    absolute, here = os.path.abspath(path), os.path.join(os.getcwd(), "")
    return (absolute.removeprefix(here) if absolute.startswith(here) else path).replace(os.sep, "/")
