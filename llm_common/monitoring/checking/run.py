"""The whole of it: files, folders and pages in, findings out."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_common.catalog import CATALOGUE, Metric
from llm_common.errors import ConfigurationError
from llm_common.monitoring.checking import documents, pages
from llm_common.monitoring.checking.expressions import examine
from llm_common.monitoring.checking.queries import Asset, Query, dashboard, rules
from llm_common.monitoring.checking.rules import RULES
from llm_common.monitoring.checking.sources import Source, SourceError
from llm_common.monitoring.checking.text import VARIABLE, NotPromQLError, Variable, parsed, position
from llm_common.monitoring.checking.vocabulary import ANY, Series, Vocabulary, vocabulary
from llm_common.reporting.findings import Finding, Place, finding
from llm_common.reporting.rules import nearest

TIMEOUT = 10.0
"""How long a page may take in all, in seconds."""

TOO_DEEP = "it is nested too deep"


class RecordedByRules(Mapping[str, Series]):
    """What the rules of files record, worked out when a query asks for it."""

    def __init__(self, recording: Mapping[str, Sequence[Query]]) -> None:
        """Take the rules by what they record."""
        self.known: Vocabulary | None = None
        self._recording = recording
        self._found: dict[str, Series] = {}

    def __getitem__(self, name: str) -> Series:
        """Return what is known of what is recorded as ``name``."""
        if name not in self._found:
            queries = self._recording[name]
            self._found[name] = Series(grows=False)  # for rules that record what they ask for, in a circle
            self._found[name] = self._work_out(queries)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._recording)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._recording)

    def _work_out(self, queries: Sequence[Query]) -> Series:
        labels: dict[str, Any] = {}
        for query in queries:
            try:
                expression = parsed(query.expression, {})
                result = examine(expression, self.known or vocabulary(), lambda *_: None)
            except (NotPromQLError, RecursionError):
                return Series(grows=False)
            if result.labels is None:
                return Series(grows=False)
            labels |= {**result.labels, **dict.fromkeys(query.added, ANY)}
        return Series(labels, grows=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing that was read."""

    shown: str
    text: str = ""
    asset: Asset | None = None
    page: str | None = None
    """Of a page, its content type."""
    problems: tuple[Finding, ...] = ()


def check(
    sources: Iterable[Source],
    known: Vocabulary | None = None,
    *,
    metrics: Sequence[Metric] = CATALOGUE,
    codes: Collection[str] = frozenset(RULES),
    timeout: float = TIMEOUT,
) -> tuple[list[Finding], int]:
    """Return the findings, sorted, and how many files and pages were checked.

    ``known`` is what queries may name, ``metrics`` what pages are compared with; both are the catalogue's by default.
    Rules record for all queries that are checked in the same call.
    """
    readings = [one for source in sources for one in read(source, timeout)]
    recording: dict[str, list[Query]] = defaultdict(list)
    for reading in readings:
        for query in reading.asset.queries if reading.asset else ():
            if query.record:
                recording[query.record].append(query)
    recorded = RecordedByRules(dict(recording))
    known = replace(known or vocabulary(metrics), rules=recorded)
    recorded.known = known
    found: list[Finding] = []
    for reading in readings:
        found += reading.problems
        if reading.asset:
            found += AssetCheck(reading, reading.asset, known).findings()
        elif reading.page is not None:
            found += page_findings(reading, metrics)
    return sorted({one for one in found if one.code in codes}), len({one.shown for one in readings})


def read(source: Source, timeout: float) -> Iterator[Reading]:
    """Yield what a source has: an asset for each document of a file, or a page."""
    name = source.shown
    try:
        text, kind = source.read(timeout)
    except SourceError as problem:
        yield Reading(name, problems=(problem_at(name, "MC902", str(problem), problem.fix),))
        return
    ending = "" if source.url else source.path.rpartition(".")[2].lower()
    start = text.lstrip()
    try:
        if ending == "json" or (ending not in {"yml", "yaml"} and not source.url and start.startswith("{")):
            given = [documents.read_json(text)]
        elif ending in {"yml", "yaml"} or (not source.url and ("\n" + start).find("\ngroups:") >= 0):
            given = list(documents.read_yaml(text))
        else:
            yield Reading(name, text, page=kind)
            return
    except documents.UnreadableError as problem:
        place = Place(name, problem.line, problem.column, problem.line, problem.column)
        fix = "mend it, or leave it out"
        yield Reading(name, problems=(finding(place, "MC901", str(problem), fix),))
        return
    assets = [asset for one in given if (asset := dashboard(one) or rules(one))]
    for asset in assets:
        yield Reading(name, text, asset)
    if not assets and not source.searched:
        fix = "name a dashboard (with panels), a rule file (with groups) or a page"
        yield Reading(name, problems=(problem_at(name, "MC901", "it is neither a dashboard nor a rule file", fix),))


def problem_at(name: str, code: str, message: str, fix: str) -> Finding:
    """Return a finding about something as a whole."""
    return finding(Place(name), code, message, fix)


class AssetCheck:
    """The check of one dashboard or rule file."""

    def __init__(self, reading: Reading, asset: Asset, known: Vocabulary) -> None:
        """Check what was read against what is known."""
        self._reading = reading
        self._asset = asset
        self._known = known
        self._places = documents.Places(reading.text)
        self._found: list[Finding] = []

    def findings(self) -> list[Finding]:
        """Return what is wrong."""
        for query in self._asset.queries:
            self._query(query, self._places.of(query.source))
        return self._found

    def _query(self, query: Query, start: tuple[int, int]) -> None:
        variables: Mapping[str, Variable] = self._asset.variables

        def report(code: str, message: str, fix: str, word: str = "", after: str = "") -> None:
            offset = position(query.expression, word, after)
            line, column = self._places.within(start, query.source, query.source.find(query.expression) + offset)
            place = Place(self._reading.shown, line, column, line, column + len(word))
            made = finding(place, code, message, fix)
            warning = RULES[code].warning
            self._found.append(
                replace(made, subject=query.subject, excerpt=query.expression, offset=offset, warning=warning)
            )

        if not query.expression:
            return
        try:
            result = examine(parsed(query.expression, variables), self._known, report, variables)
        except NotPromQLError as problem:
            report("MC903", f"this isn't PromQL: {problem}", "mend it; Prometheus refuses it as well")
            return
        except RecursionError:
            report("MC903", f"this isn't PromQL that can be read: {TOO_DEEP}", "split it, with a recording rule")
            return
        if result.labels is None:
            return
        for label, text in query.labels:
            if label not in result.labels and label != "__name__":
                self._missing(report, label, f"the text {text!r} names the label {label!r}", list(result.labels))
        asked = query.selected
        if asked and not VARIABLE.search(asked) and asked not in {*result.labels, "__name__"}:
            self._missing(report, asked, f"it asks for the label {asked!r}", list(result.labels))

    def _missing(self, report: Any, label: str, what: str, labels: list[str]) -> None:
        close = nearest(label, labels)
        fix = f"write {close!r}" if close else f"it has {', '.join(sorted(labels)) or 'no labels'}"
        report("MC203", f"{what}, which the result doesn't have", fix)


def page_findings(reading: Reading, metrics: Sequence[Metric]) -> list[Finding]:
    """Return what is wrong with a page."""
    found: list[Finding] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(reading.text.split("\n"), 1):
        lines.setdefault(line.partition("{")[0].partition(" ")[0], number)

    def report(code: str, message: str, fix: str, name: str) -> None:
        at = lines.get(name, 1)
        made = finding(Place(reading.shown, at, 1, at, 1), code, message, fix)
        found.append(replace(made, warning=RULES[code].warning))

    try:
        pages.Page(metrics, report).check(pages.families_in(reading.text, reading.page or ""))
    except pages.PageError as problem:
        report("MC901", f"it isn't a page that Prometheus could read: {problem}", "expose it with a client library", "")
    return found


def with_metrics(
    known: Vocabulary, sources: Iterable[Source], timeout: float = TIMEOUT, metrics: Sequence[Metric] = CATALOGUE
) -> Vocabulary:
    """Return what queries may name where these pages of the application are at hand.

    Raises :class:`ConfigurationError` for one that can't be read.
    """
    families = []
    for source in sources:
        try:
            families += pages.families_in(*source.read(timeout))
        except (SourceError, pages.PageError) as problem:
            raise ConfigurationError(f"the option --metrics names {source.shown!r}: {problem}") from None
    return pages.with_pages(known, families, metrics) if families else known
