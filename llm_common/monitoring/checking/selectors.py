"""Selectors: the metrics that they name, the labels that they match, and the values that they ask for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from promql_parser import Matcher, MatchOp, VectorSelector

from llm_common.monitoring.checking.patterns import alternatives, literal, matches_any, matching
from llm_common.monitoring.checking.results import Result, united
from llm_common.monitoring.checking.text import MARK, Variable, variable_in
from llm_common.monitoring.checking.vocabulary import Series, Values, Vocabulary
from llm_common.reporting.rules import nearest

Report = Callable[[str, str, str, str, str], object]
"""Takes a code, a message, a fix, the word that is wrong, and one before it where the search for it begins."""


@dataclass(frozen=True, slots=True)
class Selectors:
    """What compares selectors with a vocabulary."""

    known: Vocabulary
    report: Report
    variables: Mapping[str, Variable]

    def selector(self, node: VectorSelector) -> Result:
        """Examine the name and the matchers of a selector."""
        matchers = [*node.matchers.matchers, *(one for group in node.matchers.or_matchers for one in group)]
        found = self.selected(node.name, [one for one in matchers if one.name == "__name__"])
        if found.labels is None:
            return Result(None, found.grows)
        name = node.name or "what it selects"
        for matcher in matchers:
            if matcher.name == "__name__" or MARK in matcher.name:
                continue
            if matcher.name not in found.labels:
                self.missing("MC201", matcher.name, f"{name} has no label {matcher.name!r}", found.labels, name)
            else:
                self.values(matcher, found.labels[matcher.name], name)
        return Result(found.labels, found.grows)

    def selected(self, name: str | None, matchers: list[Matcher]) -> Series:
        """Return what is known of the series that a name or matchers of ``__name__`` select."""
        if name is None and not matchers:
            return Series()
        if name is not None:
            found = None if MARK in name else self.known.find(name)
            if found is None and MARK not in name and self.known.judges(name):
                self.unknown(name)
            return found or Series()
        if any(one.op in (MatchOp.NotEqual, MatchOp.NotRe) or MARK in one.value for one in matchers):
            return Series()
        return self.together({name for one in matchers for name in self.named(one)})

    def named(self, matcher: Matcher) -> list[str]:
        """Return the names that a matcher of ``__name__`` selects; report what selects none."""
        names: list[str] = []
        for one in [matcher.value] if matcher.op == MatchOp.Equal else alternatives(matcher.value):
            exact = one if matcher.op == MatchOp.Equal else literal(one)
            known = matching(one, self.known.names) if exact is None else [exact] * bool(self.known.find(exact))
            if known == [] and self.known.judges(one):
                self.unknown(one)
            names += known or [one]
        return names

    def together(self, names: set[str]) -> Series:
        """Return what is known of series of several names: their labels if all are known."""
        labels: dict[str, Values] = {}
        growing = set()
        for name in names:
            found = self.known.find(name)
            if found is None or found.labels is None:
                return Series()
            labels = united(labels, found.labels)
            growing.add(found.grows)
        return Series(labels, growing.pop() if len(growing) == 1 else None)

    def unknown(self, name: str) -> None:
        """Report a metric that doesn't exist."""
        close = nearest(name, self.known.names)
        fix = f"write {close!r}" if close else "name one that exists"
        self.report("MC101", f"there is no metric {name!r}", fix, name, "")

    def missing(self, code: str, label: str, message: str, labels: Iterable[str], after: str = "") -> None:
        """Report a label that isn't there."""
        listed = sorted(labels)
        close = nearest(label, listed)
        fix = f"write {close!r}" if close else f"it has {', '.join(listed) or 'no labels'}"
        self.report(code, message, fix, label, after)

    def values(self, matcher: Matcher, values: Values, name: str) -> None:
        """Examine the value that a matcher asks for."""
        negative = matcher.op in (MatchOp.NotEqual, MatchOp.NotRe)
        if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
            for value in self.filled(matcher.value):
                if value is not None and not (negative and not value):
                    self.value(matcher.name, value, values, name, exists=values.has(value))
            return
        for one in alternatives(matcher.value):
            for pattern in self.filled(one):
                if pattern:
                    self.value(matcher.name, pattern, values, name, exists=fits(pattern, values))

    def filled(self, value: str) -> Iterable[str | None]:
        """Return the values that a matcher stands for: those of a variable, if the dashboard has them all."""
        if MARK not in value:
            return [value]
        return self.variables.get(variable_in(value), Variable()).options or [None]

    def value(self, label: str, value: str, values: Values, name: str, *, exists: bool) -> None:
        """Report a value, or a pattern of values, that no series has."""
        if not exists:
            choice = sorted(values.known or (), key=lambda one: (number_or(one), one))
            listed = ", ".join(choice) if len(choice) <= 25 else f"three digits or {', '.join(choice[-4:])}"
            end = f", or ends with {values.ending}" if values.ending else ""
            if values.numbers:
                self.report("MC302", f"{value!r} is no bound of {name}", f"its bounds are {listed}", value, label)
            else:
                close = nearest(value, choice)
                fix = f"write {close!r}" if close else f"it is one of {listed}{end}"
                self.report("MC301", f"{label} of {name} is never {value!r}", fix, value, label)
        elif values.known is None and values.seen is not None:
            text = literal(value)
            if text is not None and text not in values.seen:
                close = nearest(text, values.seen)
                fix = f"write {close!r} if that is meant" if close else "compare it with the page"
                self.report("MC303", f"the page shows no {label} {text!r} of {name}", fix, value, label)


def fits(pattern: str, values: Values) -> bool:
    """Return whether a pattern matches a value that exists, in doubt that it does."""
    if values.known is None:
        return True
    text = literal(pattern)
    if text is not None:
        return values.has(text)
    candidates = values.known
    if values.numbers:
        candidates |= {f"{float(one):g}" for one in values.known}
    return bool(values.ending) or matches_any(pattern, candidates) is not False


def number_or(text: str) -> float:
    """Return a text as a number for sorting, and what is none behind all numbers."""
    try:
        return float(text)
    except ValueError:
        return float("inf")
