"""What an expression of PromQL names, compared with what exists; and the labels that its result has."""

from collections.abc import Mapping
from typing import cast

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
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

from llm_common.monitoring.checking.results import SCALAR, Labels, Result, either, only, without
from llm_common.monitoring.checking.selectors import Report, Selectors
from llm_common.monitoring.checking.text import MARK, Variable
from llm_common.monitoring.checking.vocabulary import ANY, Values, Vocabulary

RATES = frozenset({"rate", "irate", "increase"})
"""Functions that take what only grows."""

SELECTING = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
"""Aggregations that keep series as they are."""

SETS = frozenset({"and", "unless"})


def examine(
    expression: Expr, known: Vocabulary, report: Report, variables: Mapping[str, Variable] | None = None
) -> Result:
    """Report what an expression names that doesn't exist; return what is known of its result."""
    return Examination(known, report, variables or {}).of(expression)


class Examination(Selectors):
    """The walk through one expression."""

    __slots__ = ()

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
