"""Where what is checked comes from: files, folders, standard input, and pages that a server answers with."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import MappingProxyType
from typing import IO

from llm_common.errors import ConfigurationError
from llm_common.reporting.findings import shown

MOST_BYTES = 64_000_000
"""How large a file or a page may be; more is no dashboard, and a page that no Prometheus should be given."""

ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""What Prometheus asks for, without the formats that only Prometheus reads."""

FIX = "name the address that Prometheus scrapes, while the application runs"

ENDINGS = (".json", ".yml", ".yaml")
SKIPPED = frozenset({"node_modules", "__pycache__"})
"""Folders that aren't searched; nor are hidden ones."""


class SourceError(ValueError):
    """Something can't be read. The message says why, :attr:`fix` what to do."""

    def __init__(self, message: str, fix: str) -> None:
        """Say what is wrong, and what to do about it."""
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a page."""

    shown: str
    """As reports have it."""
    path: str = ""
    """Of a file, absolute."""
    url: str = ""
    """Of a page."""
    given: bytes | None = None
    """What standard input had."""
    searched: bool = False
    """Whether it was found in a folder: what is neither a dashboard nor a rule file is passed over then."""

    def read(self, timeout: float) -> tuple[str, str]:
        """Return its text and, of a page, its content type. Raises :class:`SourceError`."""
        kind = ""
        if self.given is not None:
            content = self.given
        elif self.url:
            content, kind = fetch(self.url, timeout)
        else:
            content = load(self.path)
        try:
            return content.decode("utf-8-sig").replace("\r\n", "\n"), kind
        except UnicodeDecodeError as problem:
            raise SourceError(f"the text isn't UTF-8: {problem.reason}", "save it as UTF-8") from None


def load(path: str) -> bytes:
    """Return what a file has. Raises :class:`SourceError`."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as problem:
        message = f"the file can't be read: {problem.strerror or problem}"
        raise SourceError(message, "make it readable, or leave it out") from None
    return small_enough(content)


def small_enough(content: bytes) -> bytes:
    """Return what was read. Raises :class:`SourceError` where there is more."""
    if len(content) > MOST_BYTES:
        raise SourceError(f"it has more than {MOST_BYTES:,} bytes", "split it, or limit how many series there are")
    return content


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: Prometheus may be configured not to, and what is checked has to be what was named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Return no request, so that the answer itself is an error."""


def fetch(url: str, timeout: float) -> tuple[bytes, str]:
    """Return what a server answers with, and its content type. Raises :class:`SourceError`."""
    content, headers = exchange(url, timeout)
    return content, headers.get("Content-Type", "")


def exchange(url: str, timeout: float, headers: Mapping[str, str] = MappingProxyType({})) -> tuple[bytes, HTTPMessage]:
    """Return what a server answers with, and the headers of the answer, within ``timeout`` seconds in all.

    ``headers`` are those that the request has besides. Raises :class:`SourceError`.
    """
    # A server that drips its headers never lets a read time out, so that it is waited for from outside.
    answers: SimpleQueue[tuple[bytes, HTTPMessage] | SourceError] = SimpleQueue()
    Thread(target=lambda: answers.put(_answer(url, timeout + 1, headers)), daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except Empty:
        raise SourceError(f"the server gives no answer within {timeout:g} seconds", FIX) from None
    if isinstance(answer, SourceError):
        raise answer
    return answer


def _answer(url: str, timeout: float, headers: Mapping[str, str]) -> tuple[bytes, HTTPMessage] | SourceError:
    try:
        request = urllib.request.Request(url, headers={"Accept": ACCEPT, **headers})  # noqa: S310 - http(s) alone gets here
        with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout) as answer:
            return small_enough(answer.read(MOST_BYTES + 1)), answer.headers
    except urllib.error.HTTPError as problem:
        problem.close()
        where = problem.headers.get("Location")
        if where and problem.code in {301, 302, 303, 307, 308}:
            message = f"the server answers {problem.code} and sends on to {without_query(where)!r}"
            return SourceError(message, "name that address, if it is the page")
        return SourceError(f"the server answers {problem.code} {problem.reason}", FIX)
    except SourceError as problem:
        return problem
    except Exception as problem:  # nobody else would hear of it
        reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
        said = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
        return SourceError(f"the page can't be read: {said}", FIX)


def is_url(name: str) -> bool:
    """Return whether a name is the address of a page."""
    return name.lower().startswith(("http://", "https://"))


def without_query(url: str) -> str:
    """Return an address as reports have it: there may be a key in its query."""
    path, mark, _ = url.partition("?")
    return f"{path}{mark and '?***'}"


def source(name: str, standard_input: bytes = b"") -> Source:
    """Return what a name stands for. Raises :class:`ConfigurationError` where that doesn't exist."""
    if name == "-":
        return Source("<stdin>", given=standard_input)
    if is_url(name):
        if "@" in name.split("/")[2]:
            raise ConfigurationError("an address has credentials in it, which isn't supported; leave them out")
        return Source(without_query(name), url=name)
    if os.path.lexists(name):
        return Source(shown(name), path=os.path.abspath(name))
    raise ConfigurationError(
        f"there is no file or folder {name!r}; name one that exists, or the address of a page (http://…)"
    )


def sources(names: Iterable[str], standard_input: bytes = b"") -> list[Source]:
    """Return what names stand for, each once: files, pages, and what is in folders."""
    found: dict[str, Source] = {}
    for name in names:
        here = search(Path(name)) if os.path.isdir(name) else [source(name, standard_input)]
        for one in here:
            found.setdefault(os.path.realpath(one.path) if one.path else one.url or one.shown, one)
    return list(found.values())


def search(folder: Path) -> Iterator[Source]:
    """Yield the files in a folder, and those below, that could be dashboards or rules, in alphabetical order."""
    for here, below, names in os.walk(folder):
        below[:] = sorted(one for one in below if not one.startswith(".") and one not in SKIPPED)
        for name in sorted(names):
            path = os.path.join(here, name)
            if name.endswith(ENDINGS) and not name.startswith(".") and os.path.isfile(path):
                yield Source(shown(path), path=os.path.abspath(path), searched=True)
