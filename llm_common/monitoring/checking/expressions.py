"""What an expression of PromQL names, compared with what exists; and the labels that its result has."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
    Matcher,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorMatchCardinality,
    VectorSelector,
)

from llm_common.monitoring.checking.patterns import alternatives, literal, matches_any, matching
from llm_common.monitoring.checking.text import MARK, Variable, variable_in
from llm_common.monitoring.checking.vocabulary import ANY, Series, Values, Vocabulary
from llm_common.reporting.rules import nearest

Labels = Mapping[str, Values]
Report = Callable[[str, str, str, str, str], object]
"""Takes a code, a message, a fix, the word that is wrong, and one before it where the search for it begins."""

RATES = frozenset({"rate", "irate", "increase"})
"""Functions that take what only grows."""

SELECTING = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
"""Aggregations that keep series as they are."""

SETS = frozenset({"and", "unless"})


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of the series that an expression returns."""

    labels: Labels | None = None
    """``None`` where nobody knows them."""
    grows: bool | None = None
    scalar: bool = False
    summed: bool = False
    """Whether it is an aggregation."""


SCALAR = Result({}, scalar=True)


def examine(
    expression: Expr, known: Vocabulary, report: Report, variables: Mapping[str, Variable] | None = None
) -> Result:
    """Report what an expression names that doesn't exist; return what is known of its result."""
    return Examination(known, report, variables or {}).of(expression)


@dataclass(frozen=True, slots=True)
class Examination:
    """The walk through one expression."""

    known: Vocabulary
    report: Report
    variables: Mapping[str, Variable]

    def of(self, node: Expr) -> Result:
        """Examine a node and what is below; return what is known of its result."""
        match node:
            case NumberLiteral() | StringLiteral():
                return SCALAR
            case VectorSelector():
                return self.selector(node)
            case MatrixSelector():
                return self.of(node.vector_selector)
            case ParenExpr() | UnaryExpr():
                return self.of(node.expr)
            case SubqueryExpr():
                return self.of(node.expr)
            case AggregateExpr():
                return self.aggregation(node)
            case BinaryExpr():
                return self.binary(node)
            case _:
                return self.call(cast("Call", node))

    def selector(self, node: VectorSelector) -> Result:
        """Examine the name and the matchers of a selector."""
        groups = [*node.matchers.or_matchers, []] if node.matchers.or_matchers else [[]]
        matchers = [*node.matchers.matchers, *(one for group in groups for one in group)]
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

    def aggregation(self, node: AggregateExpr) -> Result:
        """Examine an aggregation: the labels that are kept have to be there."""
        inner = self.of(node.expr)
        added: dict[str, Values] = {}
        if isinstance(node.param, Expr):
            self.of(node.param)
            if isinstance(node.param, StringLiteral):  # count_values
                added = {node.param.val: ANY}
        listed = node.modifier.labels if node.modifier else []
        for label in listed:
            self.has(label, inner.labels, "to group by")
        if str(node.op) in SELECTING:
            return inner
        if node.modifier and node.modifier.type == AggModifierType.Without:
            kept = None if inner.labels is None else without(inner.labels, listed)
        else:
            kept = only(inner.labels, listed)
        return Result(None if kept is None else {**kept, **added}, grows=False, summed=True)

    def has(self, label: str, labels: Labels | None, purpose: str) -> None:
        """Report a label that isn't among those that are known."""
        if labels is not None and label not in labels and label != "__name__" and MARK not in label:
            self.missing("MC202", label, f"there is no label {label!r} {purpose}", labels)

    def binary(self, node: BinaryExpr) -> Result:
        """Examine an operation: labels to match on have to be there on both sides."""
        left, right = self.of(node.lhs), self.of(node.rhs)
        if left.scalar or right.scalar:
            return SCALAR if left.scalar and right.scalar else Result((right if left.scalar else left).labels, False)
        modifier = node.modifier
        matching_ = modifier.matching if modifier else None
        on = matching_ is not None and matching_.type == LabelModifierType.Include
        listed = matching_.labels if matching_ else []
        self.matched(left, right, listed, on=on)
        if str(node.op) == "or":
            return Result(either(left.labels, right.labels), grows=False)
        if str(node.op) in SETS:
            return Result(left.labels, grows=False)
        if modifier and modifier.card in (VectorMatchCardinality.ManyToOne, VectorMatchCardinality.OneToMany):
            sides = (left, right) if modifier.card == VectorMatchCardinality.ManyToOne else (right, left)
            return self.grouped(*sides, modifier.group_labels or [])
        if on:
            return Result(only(left.labels, listed), grows=False)
        return Result(None if left.labels is None else without(left.labels, listed), grows=False)

    def matched(self, left: Result, right: Result, listed: list[str], *, on: bool) -> None:
        """Examine the labels that two sides are matched by."""
        for label in listed:
            if on:
                self.has(label, left.labels, "on the left to match on")
                self.has(label, right.labels, "on the right to match on")
            else:
                self.has(label, either(left.labels, right.labels), "to ignore")

    def grouped(self, many: Result, one: Result, taken: list[str]) -> Result:
        """Examine the labels that ``group_left`` or ``group_right`` takes from the other side."""
        for label in taken:
            self.has(label, one.labels, "to take from the other side")
        if many.labels is None:
            return Result(None, grows=False)
        return Result({**many.labels, **(only(one.labels, taken) or {})}, grows=False)

    def call(self, node: Call) -> Result:
        """Examine a call of a function."""
        name = node.func.name
        results = [self.of(one) for one in node.args]
        vectors = [one for one in results if not one.scalar]
        texts = [one.val for one in map(bare, node.args) if isinstance(one, StringLiteral)]
        if node.func.return_type == ValueType.Scalar:
            return SCALAR
        if not vectors or name in {"absent", "absent_over_time"}:
            return Result(absent(node) if vectors else {}, grows=False)
        inner = vectors[0]
        if name in RATES:
            self.rate(name, node.args[0], inner)
        if name in {"label_replace", "label_join"}:
            return self.relabelled(name, texts, inner)
        if name in {"sort_by_label", "sort_by_label_desc"}:
            for label in texts:
                self.has(label, inner.labels, "to sort by")
        if name == "histogram_quantile":
            if inner.labels is not None and "le" not in inner.labels:
                message = "histogram_quantile() is given series without the label 'le'"
                self.report("MC402", message, "keep it: sum by (le, …) of what ends with _bucket", name, "")
            return Result(None if inner.labels is None else without(inner.labels, ["le"]), grows=False)
        return Result(None, grows=False) if name == "info" else Result(inner.labels, grows=False)

    def rate(self, name: str, argument: Expr, inner: Result) -> None:
        """Report a rate of what isn't a counter."""
        if inner.summed:
            self.report(
                "MC403",
                f"{name}() of a sum takes the restart of one instance for growth of all",
                f"write sum({name}(…))",
                name,
                "",
            )
        elif inner.grows is False:
            selector = argument.vector_selector if isinstance(argument, MatrixSelector) else None
            what = (selector.name if selector else "") or "it"
            self.report("MC401", f"{name}() takes a counter, and {what} is none", "ask for it as it is", name, "")

    def relabelled(self, name: str, texts: list[str], inner: Result) -> Result:
        """Examine what ``label_replace`` and ``label_join`` read; return the result with what they write."""
        target, _, *sources = texts if name == "label_join" else texts[:3]
        for label in sources:
            self.has(label, inner.labels, f"for {name}()")
        return Result(None if inner.labels is None else {**inner.labels, target: ANY}, grows=False)


def bare(node: Expr) -> Expr:
    """Return what is in parentheses."""
    while isinstance(node, ParenExpr):
        node = node.expr
    return node


def absent(node: Call) -> Labels | None:
    """Return the labels of what ``absent()`` returns: those that its argument asks for with ``=``."""
    argument = bare(node.args[0])
    selector = argument.vector_selector if isinstance(argument, MatrixSelector) else argument
    if not isinstance(selector, VectorSelector):
        return {}
    return {one.name: ANY for one in selector.matchers.matchers if one.op == MatchOp.Equal and one.name != "__name__"}


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


def only(labels: Labels | None, kept: Iterable[str]) -> Labels | None:
    """Return those labels that are kept and exist; all that are kept where that isn't known."""
    if any(MARK in one for one in kept):
        return None
    return {one: (labels or {}).get(one, ANY) for one in kept if labels is None or one in labels}


def without(labels: Labels, dropped: Iterable[str]) -> Labels:
    """Return all labels but some."""
    return {name: values for name, values in labels.items() if name not in dropped}


def either(one: Labels | None, other: Labels | None) -> Labels | None:
    """Return the labels of both, if all are known."""
    return None if one is None or other is None else united(one, other)


def united(one: Labels, other: Labels) -> dict[str, Values]:
    """Return the labels of both."""
    return {**one, **{name: (one[name] | values if name in one else values) for name, values in other.items()}}


def number_or(text: str) -> float:
    """Return a text as a number for sorting, and what is none behind all numbers."""
    try:
        return float(text)
    except ValueError:
        return float("inf")
