"""What is wrong with a page that is served, seen from outside: asked several times, one by one and at once."""

import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from urllib.parse import urljoin

from llm_common.backends.prometheus import MULTIPROC_DIR
from llm_common.catalog import CATALOGUE
from llm_common.doctor.environment import Problem, Problems, app_named_after_tool, env_outside
from llm_common.monitoring.checking.pages import Page, PageError, families_in
from llm_common.monitoring.checking.rules import RULES
from llm_common.monitoring.checking.sources import SourceError, exchange

ALONE = 3
"""How often the page is asked for while nothing else is, to see how long it takes."""
ROUNDS, AT_ONCE = 5, 4
"""How often it is asked for by several at once, so that more than one worker has to answer."""
BUDGET = 10.0
"""After how many seconds no further round begins."""
SLOW = 1.0
"""From how many seconds on a page takes long."""
WORTH_WAITING = 0.25
"""From how many seconds on it is looked at whether others wait for it."""
DRIFT = 5.0
"""By how many seconds clocks may differ."""
NOWHERE = "/llm-common-doctor"
"""A path that no application has."""

STARTED = re.compile(r"^process_start_time_seconds(?:\{\})? (\S+)", re.MULTILINE)
COUNTED = re.compile(r"^(genapp_\w+_(?:total|bucket)(?:\{.*?\})?) ([\d.e+]+)(?= |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer."""

    text: str
    kind: str
    """The content type."""
    date: str
    """The header of that name."""
    seconds: float
    """How long it took."""
    ended: float
    """When it was there, as a Unix time."""

    @property
    def process(self) -> float | None:
        """When the process started that answered, if it says so."""
        found = STARTED.search(self.text)
        with suppress(ValueError):
            if found and isfinite(started := float(found[1])):
                return started
        return None

    @property
    def told(self) -> float:
        """The time by the server's clock, or by ours where it doesn't tell."""
        with suppress(ValueError, OverflowError):
            return parsedate_to_datetime(self.date).timestamp()
        return self.ended


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a page answered."""

    rounds: Sequence[Sequence[Scrape]]
    """Those of a round were asked for at once, the rounds one after another."""
    seconds: float
    """How long one takes alone."""
    waited: float = 0.0
    """How long another request waited longer while the page was made."""

    @property
    def page(self) -> Scrape:
        """The first answer."""
        return self.rounds[0][0]


def ask(url: str, timeout: float, headers: Mapping[str, str]) -> Endpoint:
    """Return what there is to see of a page. Raises :class:`SourceError`."""
    begun = time.monotonic()
    rounds = [[scrape(url, timeout, headers)] for _ in range(ALONE)]
    seconds = statistics.median(one.seconds for (one,) in rounds)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(ROUNDS):
            if time.monotonic() - begun > BUDGET:
                break
            answers = pool.map(lambda _: if_answered(url, timeout, headers), range(AT_ONCE))
            rounds.append([one for one in answers if one])
        if seconds < WORTH_WAITING:
            return Endpoint(rounds, seconds)
        idle = answered(url, timeout)
        page, busy = pool.submit(if_answered, url, timeout, headers), idle
        while not page.done():
            busy = max(busy, answered(url, timeout))
            time.sleep(seconds / 10)
    return Endpoint(rounds, seconds, busy - idle)


def scrape(url: str, timeout: float, headers: Mapping[str, str]) -> Scrape:
    """Ask for the page once. Raises :class:`SourceError`."""
    begun = time.monotonic()
    content, answer = exchange(url, timeout, headers)
    seconds, ended = time.monotonic() - begun, time.time()
    text = content.decode("utf-8", "replace")
    return Scrape(text, answer.get("Content-Type", ""), answer.get("Date", ""), seconds, ended)


def if_answered(url: str, timeout: float, headers: Mapping[str, str]) -> Scrape | None:
    """Ask for the page once more, which a busy server may refuse: that it can answer is known."""
    with suppress(SourceError):
        return scrape(url, timeout, headers)
    return None


def answered(url: str, timeout: float) -> float:
    """Return how long it takes until the server has answered anything else."""
    begun = time.monotonic()
    with suppress(SourceError):  # which is what it should say
        exchange(urljoin(url, NOWHERE), timeout)
    return time.monotonic() - begun


def different_processes(at: Endpoint) -> Problems:
    """Look for several workers without PROMETHEUS_MULTIPROC_DIR (DR301)."""
    fix = (
        f"set {MULTIPROC_DIR} to an empty directory before the workers start; "
        "where several machines answer, scrape each by its own address"
    )
    count = sum(map(len, at.rounds))
    processes = {one.process for each in at.rounds for one in each} - {None}
    if len(processes) > 1:
        yield Problem(f"{count} answers came from {len(processes)} processes, by when they started", fix)
    elif name := fallen(at.rounds):
        yield Problem(f"{count} answers came from several processes: {name} went down between two", fix)


def fallen(rounds: Sequence[Sequence[Scrape]]) -> str:
    """Return a counter that was higher in an earlier round than in a later one, or an empty text."""
    highest: dict[str, float] = {}
    for each in rounds:
        seen: dict[str, float] = {}
        for one in each:
            for name, value in COUNTED.findall(one.text):
                with suppress(ValueError):
                    number = float(value)
                    if number < highest.get(name, 0.0):
                        return str(name)
                    seen[name] = max(number, seen.get(name, 0.0))
        highest.update(seen)
    return ""


def slow(at: Endpoint) -> Problems:
    """Look for a page that takes long (DR402)."""
    if at.seconds >= SLOW:
        size, lines = len(at.page.text.encode()), at.page.text.count("\n")
        yield Problem(
            f"the page takes {at.seconds:.1f} seconds, for {size:,} bytes in {lines:,} lines",
            "find the names and paths that are built from data, or set max_series; see also how busy the server is",
        )


def holding_up(at: Endpoint) -> Problems | None:
    """Look for a page that holds up other requests (DR403)."""
    return None if at.seconds < WORTH_WAITING else _holding_up(at)


def _holding_up(at: Endpoint) -> Problems:
    if at.waited > 0.5 * at.seconds:
        yield Problem(
            f"another request waited {at.waited:.1f} seconds longer while the page was made",
            "serve it with metrics_asgi_app(), which makes it in a thread, or with start_metrics_server()",
        )


def clocks(at: Endpoint) -> Problems:
    """Look for clocks that differ (DR404)."""
    apart = at.page.told - at.page.ended
    if not -DRIFT - at.page.seconds < apart < DRIFT:
        side = "ahead of" if apart > 0 else "behind"
        message = f"the server's clock is {abs(apart):,.0f} seconds {side} that of this machine"
        yield Problem(message, "let both follow one server of NTP")


def future_start(at: Endpoint) -> Problems:
    """Look for a process that starts in the future (DR405)."""
    ahead = (at.page.process or 0.0) - at.page.told
    if ahead > DRIFT:
        yield Problem(f"the process started {ahead:,.0f} seconds from now", "set the clock, then restart the process")


def broken_contract(at: Endpoint) -> Problems:
    """Look for a page that isn't what the contract says (DR406)."""
    found: list[Problem] = []

    def report(code: str, message: str, fix: str, name: str) -> None:
        found.append(Problem(f"{code}: {message}", fix, RULES[code].warning))

    try:
        Page(CATALOGUE, report).check(families_in(at.page.text, at.page.kind))
    except PageError as problem:
        found.append(Problem(f"it isn't a page that Prometheus could read: {problem}", "name the page of metrics"))
    return iter(found)


def labels(at: Endpoint, label: str) -> Iterator[str]:
    """Yield the values that a label has on metrics of ours."""
    with suppress(PageError):
        families = families_in(at.page.text, at.page.kind)
        yield from sorted(
            {
                sample.labels[label]
                for family in families
                for sample in family.samples
                if sample.name.startswith("genapp_") and label in sample.labels
            }
        )


def unnamed_app(at: Endpoint) -> Problems:
    """Look for an app that nothing has named (DR103)."""
    for app in labels(at, "app"):
        yield from app_named_after_tool(app)


def unknown_env(at: Endpoint) -> Problems:
    """Look for an env that is missing or unknown (DR104)."""
    for env in labels(at, "env"):
        yield from env_outside(env)


LOOKS = {
    "DR103": unnamed_app,
    "DR104": unknown_env,
    "DR301": different_processes,
    "DR402": slow,
    "DR403": holding_up,
    "DR404": clocks,
    "DR405": future_start,
    "DR406": broken_contract,
}
"""What each check asks of a page; where it can't be asked, the answer is ``None``."""
