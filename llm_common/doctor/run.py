"""The doctor as a whole: targets in, results out, and the report."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal, TypeVar

from llm_common.doctor import endpoint, environment
from llm_common.doctor.environment import Problem
from llm_common.doctor.rules import CHECKS, RULES
from llm_common.errors import ConfigurationError
from llm_common.monitoring.checking.sources import SourceError, is_url, source
from llm_common.reporting.formats import printable
from llm_common.settings import Settings

TIMEOUT = 10.0
"""How long one answer of a page may take, in seconds."""

SECRET = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|KEY|AUTHORIZATION|DSN", re.IGNORECASE)
"""How the names of variables look whose values are secrets."""
SHORTEST_SECRET = 6
"""From how many characters on a value is kept out of reports; shorter ones would take every word apart."""

LONGEST_MESSAGE = 1000
"""How many characters of a message are shown. It may have what a page says of itself."""

Severity = Literal["ok", "warning", "error"]
Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one look."""

    target: str
    """What was looked at."""
    code: str
    severity: Severity
    message: str
    """What is wrong, or what is right, without a full stop."""
    fix: str = ""
    """What to do about it, as an order."""


def examine(
    targets: Sequence[str] = (),
    *,
    settings: Settings | None = None,
    timeout: float = TIMEOUT,
    token: str = "",
    codes: Collection[str] = frozenset(CHECKS),
) -> list[Result]:
    """Return what there is to say about each target, what is right included.

    Targets are addresses of pages (``http://…``) and numbers of processes. Without any, it is this very process, with
    the ``settings`` that ``configure()`` returned, or with what follows from the environment. ``token`` is the bearer
    token that pages ask for.

    Raises :class:`ConfigurationError` for what is no target.
    """
    if not targets:
        return looked_at(environment.inside(settings), codes)
    found: list[Result] = []
    for target in dict.fromkeys(targets):
        found += page(target, timeout, token, codes) if is_url(target) else process(target, codes)
    return found


def looked_at(at: environment.Environment, codes: Collection[str] = frozenset(CHECKS)) -> list[Result]:
    """Return what there is to say about an environment."""
    return list(results(at.shown, at, environment.LOOKS, codes, at.variables))


def process(target: str, codes: Collection[str]) -> list[Result]:
    """Return what there is to say about a process of this machine."""
    if not (target.isascii() and target.isdecimal()):
        raise ConfigurationError(
            f"there is nothing to look at that is called {hushed(target, {})!r}; "
            "name the address of a page (http://…) or the number of a process"
        )
    try:
        found = environment.of_process(int(target))
    except (OSError, OverflowError) as problem:
        message = f"the process can't be looked at: {getattr(problem, 'strerror', None) or problem}"
        return reached(f"process {target}", codes, message, "name a process of yours that runs on Linux")
    return [*reached(found.shown, codes), *looked_at(found, codes)]


def page(url: str, timeout: float, token: str, codes: Collection[str]) -> list[Result]:
    """Return what there is to say about a page."""
    source(url)  # which refuses an address with credentials in it
    secrets = {"TOKEN": token, **os.environ}
    shown = hushed(url, secrets)
    try:
        found = endpoint.ask(url, timeout, {"Authorization": f"Bearer {token}"} if token else {})
    except SourceError as problem:
        fix = "give its bearer token with --token-file" if " 401 " in str(problem) else problem.fix
        return reached(shown, codes, hushed(str(problem), secrets), fix)
    return [*reached(shown, codes), *results(shown, found, endpoint.LOOKS, codes, secrets)]


def reached(shown: str, codes: Collection[str], problem: str = "", fix: str = "") -> list[Result]:
    """Return whether a target could be looked at, or why not."""
    if "DR401" not in codes:
        return []
    return [Result(shown, "DR401", "error" if problem else "ok", problem or CHECKS["DR401"].fine, fix)]


def results(
    shown: str,
    target: Target,
    looks: Mapping[str, Callable[[Target], Iterable[Problem] | None]],
    codes: Collection[str],
    variables: Mapping[str, str],
) -> Iterator[Result]:
    """Yield what each look says of a target."""
    for code, look in looks.items():
        found = look(target) if code in codes else None
        if found is None:
            continue
        problems = list(found)
        for one in problems:
            warning = RULES[code].warning if one.warning is None else one.warning
            message, fix = shortened(hushed(one.message, variables)), hushed(one.fix, variables)
            yield Result(shown, code, "warning" if warning else "error", message, fix)
        if not problems:
            yield Result(shown, code, "ok", CHECKS[code].fine)


def shortened(text: str) -> str:
    """Return as much of a text as a report has room for."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def hushed(text: str, variables: Mapping[str, str]) -> str:
    """Return a text without what may be secret: values of such variables, credentials and queries of addresses."""
    for name, value in sorted(variables.items(), key=lambda pair: -len(pair[1])):
        if len(value) >= SHORTEST_SECRET and SECRET.search(name):
            text = text.replace(value, "***")
    text = re.sub(r"[^\s'\"]+", without_credentials, text)
    return re.sub(r"(?<=[^\s'\"])\?[^\s]+(?<!['\"])", "?***", text)


def without_credentials(word: re.Match[str]) -> str:
    """Return a word without the credentials that it has as an address."""
    # In steps, since one pattern for all of it takes the square of a word's length, and pages may have long ones.
    before, _, host = word[0].rpartition("@")
    address = re.match(r"[a-z][\w+.-]*:/+", before)
    scheme = address[0] if address else ""
    user, colon, _ = before.removeprefix(scheme).partition(":")
    # With a scheme, a token or a password may stand alone; a path with an @ in it is none.
    found = before != scheme and (colon or "/" not in user) if scheme else user.rpartition("/")[2] and colon
    return f"{scheme}***@{host}" if found else word[0]


def as_text(found: Sequence[Result]) -> str:
    """Return a heading for each target, a line for each result, and a line for all of them."""
    lines = []
    for target, those in groupby(found, lambda one: one.target):
        lines.append(printable(target))
        lines += [
            f"  {one.severity:<8} {one.code}  {printable('; '.join(filter(None, (one.message, one.fix))))}"
            for one in those
        ]
    counts = {kind: sum(one.severity == kind for one in found) for kind in ("error", "warning")}
    told = ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in counts.items())
    return "".join(f"{line}\n" for line in [*lines, f"{len(found):,} result{'s' * (len(found) != 1)}, {told}"])


def as_json(found: Sequence[Result]) -> str:
    """Return a JSON list of objects."""
    return json.dumps([asdict(one) for one in found], indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = MappingProxyType({"text": as_text, "json": as_json})
