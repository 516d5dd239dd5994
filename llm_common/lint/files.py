"""Finding the files: those that are named, and those in folders that are named."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from llm_common.errors import ConfigurationError
from llm_common.lint.source import ReadError, decode, read
from llm_common.reporting.findings import shown

SKIPPED = frozenset({"__pycache__", "node_modules", "build", "dist"})
"""Folders that aren't searched; nor are hidden ones, virtual environments, and folders that are symbolic links."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to check."""

    path: str
    """Absolute."""
    shown: str
    """As reports have it."""
    code: bytes | None = None
    """What it holds, of standard input."""
    problem: str = ""
    """Why it can't be read, where that showed while it was searched."""

    def read(self) -> str:
        """Return its text. Raises :class:`ReadError`."""
        if self.problem:
            raise ReadError("LC902", self.problem, "make it readable, or exclude it")
        return read(self.path) if self.code is None else decode(self.code)


def standard_input(code: bytes, name: str) -> File:
    """Return what was given on standard input, as if it were the file ``name``."""
    return File(os.path.abspath(name), shown(name), code)


def find(paths: Iterable[str], excludes: Callable[[str], bool]) -> list[File]:
    """Return the files that ``paths`` name and the Python files in the folders that they name, each once.

    A file that is named is read whatever it is called; a pipe or a device isn't. ``excludes`` tells of an absolute path
    whether folders are searched without it. Raises :class:`ConfigurationError` for a path that doesn't exist.
    """
    found: dict[str, File] = {}
    for path in paths:
        if os.path.isdir(path):
            for file in search(path, excludes):
                found.setdefault(os.path.realpath(file.path), file)
        elif os.path.lexists(path):
            # Reading a named pipe or a device might never end.
            problem = "this is no file but a pipe, a socket or a device" if is_special(path) else ""
            found.setdefault(os.path.realpath(path), File(os.path.abspath(path), shown(path), problem=problem))
        else:
            raise ConfigurationError(
                f"there is no file or folder {path!r}; name one that exists, or - for standard input"
            )
    return list(found.values())


def is_special(path: str) -> bool:
    """Return whether something is there that is neither a file nor a folder."""
    return os.path.exists(path) and not os.path.isfile(path)


def search(folder: str, excludes: Callable[[str], bool]) -> Iterator[File]:
    """Yield the Python files in a folder and those below, in alphabetical order."""
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as problem:
            yield File(os.path.abspath(here), shown(here), problem=f"the folder can't be read: {problem.strerror}")
            continue
        below = []
        for entry in entries:
            if entry.name.startswith(".") or excludes(os.path.abspath(entry.path)):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                    below.append(entry.path)
            elif entry.name.endswith(".py"):
                path = os.path.abspath(entry.path)
                if os.path.isfile(path):  # unlike the entry's own method, it raises for no link
                    yield File(path, shown(entry.path))
                elif entry.is_symlink() and not os.path.exists(path):
                    yield File(path, shown(entry.path), problem="the symbolic link leads nowhere")
        folders.extend(reversed(below))
