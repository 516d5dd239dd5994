"""Writing an export into a folder again and again: what somebody edited there is never lost.

A list beside the files tells by their hashes what was written the last time. A file that differs from it was edited.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from llm_common.errors import LLMCommonError

LIST = ".llm_common.json"
"""The list of what was written."""

TOKEN = re.compile(r"""(\bbot_token["']?[^\S\n]*:\s*(?:[|>][-+0-9]*\s+)?)\S.*|(?<![0-9])[0-9]{5,}:[\w-]{20,}""")
"""A bot's token: after its key, however YAML has it there, or by what it looks like."""
HIDDEN = "<hidden>"
"""What stands for a bot's token in everything that is shown, also for one that was there before."""


class ExportError(LLMCommonError):
    """The folder can't be read or written. The message says which file, and why."""


class State(StrEnum):
    """What becomes of a file."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    EDITED = "edited"
    """Somebody changed it, and what would be written is what was written the last time: it stays."""
    CONFLICT = "conflict"
    """Somebody changed it, and what would be written has changed too: it stays, unless it is forced."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file of an export, and what becomes of it."""

    path: str
    state: State
    text: str
    """What the export has for it."""
    diff: str
    """From what is there to what the export has, as a unified diff; empty where they are the same."""


def plan(folder: Path, files: Mapping[str, str]) -> list[Change]:
    """Return what an export of ``files``, texts by their paths, would change in ``folder``. Nothing is written.

    No diff shows a bot's token. Raises :class:`ExportError` for what can't be read.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is no folder; give the name of a folder, which may be new")
    written = _written(folder)
    return [_change(folder, path, text, written.get(path)) for path, text in files.items()]


def _change(folder: Path, path: str, text: str, last: str | None) -> Change:
    there = _read(folder / path)
    if there is None:
        return Change(path, State.CREATED, text, "")
    if there == text:
        return Change(path, State.UNCHANGED, text, "")
    before, after = (TOKEN.sub(_hidden, one).splitlines() for one in (there, text))
    lines = unified_diff(before, after, path, f"{path} (export)", lineterm="")
    diff = "".join(f"{line}\n" for line in lines)
    if _hash(there) == last:
        return Change(path, State.UPDATED, text, diff)
    return Change(path, State.EDITED if _hash(text) == last else State.CONFLICT, text, diff)


def _hidden(token: re.Match[str]) -> str:
    return (token[1] or "") + HIDDEN


def write(folder: Path, changes: list[Change], *, force: bool = False, private: frozenset[str] = frozenset()) -> None:
    """Write what is created or updated, and with ``force`` what was edited too; then the list of what was written.

    Each file appears whole or not at all. Those in ``private`` are readable by their owner alone (mode 0600).
    Raises :class:`ExportError` for what can't be written.
    """
    kept = set() if force else {State.EDITED, State.CONFLICT}
    written = _written(folder)
    try:
        try:
            for change in changes:
                if change.state not in {State.UNCHANGED, *kept}:
                    _replace(folder / change.path, change.text, private=change.path in private)
                elif change.path in private:
                    (folder / change.path).chmod(0o600)
                if change.state not in kept:
                    written[change.path] = _hash(change.text)
        finally:  # what was written before something failed isn't taken for edited the next time
            listed = {"written": dict(sorted(written.items()))}
            _replace(folder / LIST, json.dumps(listed, indent=1) + "\n", private=False)
    except OSError as problem:
        raise ExportError(f"{problem.filename or folder} can't be written: {problem.strerror}") from problem


def _replace(path: Path, text: str, *, private: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        if not private:
            umask = os.umask(0o077)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:  # Ctrl-C as well: nothing half-written stays
        with suppress(OSError):
            os.unlink(name)
        raise


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise ExportError(f"{path} can't be read: {problem}") from problem


def _written(folder: Path) -> dict[str, str]:
    text = _read(folder / LIST)
    if text is None:
        return {}
    try:
        written = json.loads(text)["written"]
        return {str(path): str(digest) for path, digest in written.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ExportError(
            f"{folder / LIST} can't be read: {problem!r}; without it, every file that differs counts as edited: "
            "remove it, and look at what --dry-run shows"
        ) from problem


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
