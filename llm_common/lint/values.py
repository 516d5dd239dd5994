"""What an expression may be: the values of a name, the classes of an object, the contents of a dictionary."""

import ast
from collections.abc import Iterator
from typing import Any

from llm_common.lint.resolve import DEPTH, Defined, Resolver
from llm_common.lint.scopes import Binding, Kind, Scope
from llm_common.lint.source import ReadError, parse

LITERAL = frozenset({"typing.Literal", "typing_extensions.Literal"})
TYPED = (Kind.DECLARED, Kind.TYPED)


class NotLiteralError(Exception):
    """An expression isn't a literal; the text says what it is instead."""


class Values:
    """Tells what expressions may be, as far as that is written out."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def classes_of(self, expression: ast.AST, scope: Scope, depth: int = 0) -> set[str]:
        """Return the dotted names of the classes, outside of the project, that an object is of; empty where unknown.

        Of a class of the project it is those that it inherits from.
        """
        if isinstance(expression, ast.Call):
            return self._resolver.classes(expression.func, scope)
        thing = self._resolver.find(expression, scope, depth)
        if isinstance(thing, Defined) and depth <= DEPTH:
            for binding in thing.bindings:
                if binding.kind is Kind.VALUE and isinstance(binding.value, ast.Call):
                    return self._resolver.classes(binding.value.func, thing.scope)
                if binding.kind in TYPED and binding.value is not None:
                    return self._resolver.classes(annotated(binding.value), thing.scope)
                if binding.kind is Kind.EACH:
                    try:
                        items = self._items(binding.value, thing.scope, depth + 1)
                    except NotLiteralError:
                        return set()
                    steps = depth + len(items)  # so that there are never many ways to follow
                    return set().union(*(self.classes_of(item, around, steps) for item, around in items))
        return set()

    def literals(self, expression: ast.AST, scope: Scope, depth: int = 0) -> list[Any]:
        """Return the values that an expression may have: one, or each of a few that are written out.

        Raises :class:`NotLiteralError` where it isn't made of literals and of what is only ever given literals.
        """
        if isinstance(expression, ast.Constant):
            return [expression.value]
        if isinstance(expression, ast.JoinedStr):
            if all(isinstance(part, ast.Constant) for part in expression.values):
                return ["".join(str(part.value) for part in expression.values if isinstance(part, ast.Constant))]
            raise NotLiteralError("an f-string with a placeholder")
        if isinstance(expression, ast.IfExp):
            ways = (expression.body, expression.orelse)
            return [value for one in ways for value in self.literals(one, scope, depth + 1)]
        if isinstance(expression, ast.Name | ast.Attribute) and depth <= DEPTH:
            return self._constant(expression, scope, depth)
        raise NotLiteralError(described(expression))

    def _constant(self, expression: ast.Name | ast.Attribute, scope: Scope, depth: int) -> list[Any]:
        thing = self._resolver.find(expression, scope)
        if thing is None and isinstance(expression, ast.Attribute) and expression.attr == "value":
            thing = self._resolver.find(expression.value, scope)  # a member of an enumeration
        if isinstance(thing, Defined):
            given = [one for one in thing.bindings if one.kind is not Kind.TYPED] or thing.bindings
            try:
                # Each way costs a step, so that there are never many to follow.
                steps = depth + len(given)
                return [value for one in given for value in self._values(thing, one, steps)]
            except NotLiteralError as problem:
                raise NotLiteralError(", ".join(filter(None, (described(expression), str(problem))))) from None
        raise NotLiteralError(described(expression))

    def _values(self, thing: Defined, binding: Binding, depth: int) -> list[Any]:
        """Return the values that one binding may give to a name."""
        if binding.kind is Kind.VALUE:
            automatic = self._resolver.dotted(getattr(binding.value, "func", binding.value), thing.scope) == "enum.auto"
            if automatic and "enum.StrEnum" in self._resolver.lineage(thing.scope):
                return [thing.name.lower()]
            return self.literals(binding.value, thing.scope, depth)
        if binding.kind is Kind.EACH:
            items = self._items(binding.value, thing.scope, depth)
            return [value for item, scope in items for value in self.literals(item, scope, depth + len(items))]
        if binding.kind in TYPED and binding.value is not None:
            return self._of_type(binding.value, thing.scope, depth)
        raise NotLiteralError

    def _of_type(self, annotation: ast.AST, scope: Scope, depth: int) -> list[Any]:
        """Return the values that a type has: a ``Literal``, or an enumeration of the project."""
        kind = annotated(annotation)
        if isinstance(kind, ast.Subscript) and self._resolver.dotted(kind.value, scope) in LITERAL:
            listed = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
            return [value for one in listed for value in self.literals(one, scope, depth)]
        thing = self._resolver.find(kind, scope)
        if isinstance(thing, Defined) and depth <= DEPTH:
            if thing.kind is Kind.CLASS:
                return self._members(thing, depth)
            if thing.kind is Kind.VALUE:
                return self._of_type(thing.bindings[-1].value, thing.scope, depth + 1)
        raise NotLiteralError

    def _members(self, thing: Defined, depth: int) -> list[Any]:
        """Return the values of an enumeration."""
        owner: Scope = thing.bindings[-1].value
        if not any(isinstance(one, str) and one.startswith("enum.") for one in self._resolver.lineage(owner)):
            raise NotLiteralError
        members = [
            Defined(name, owner, bindings)
            for name, bindings in owner.names.items()
            if not name.startswith("_") and bindings[-1].kind is Kind.VALUE
        ]
        return [value for one in members for binding in one.bindings for value in self._values(one, binding, depth)]

    def _items(self, loop: tuple[ast.expr, int | None], scope: Scope, depth: int) -> list[tuple[ast.expr, Scope]]:
        """Return what a name of a loop stands for in turn. Raises :class:`NotLiteralError` where nothing tells."""
        items = self._elements(loop[0], scope, depth)
        place = loop[1]
        if place is None:
            return items
        parts = [(item.elts, around) for item, around in items if isinstance(item, ast.Tuple | ast.List)]
        if len(parts) < len(items) or any(len(part) <= place for part, _ in parts):
            raise NotLiteralError
        return [(part[place], around) for part, around in parts]

    def _elements(self, expression: ast.expr, scope: Scope, depth: int) -> list[tuple[ast.expr, Scope]]:
        """Return the elements of a collection that is written out."""
        if isinstance(expression, ast.Tuple | ast.List | ast.Set):
            return [(one, scope) for one in expression.elts]
        if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Attribute):
            pairs = list(self.pairs(expression.func.value, scope, depth)) if expression.func.attr == "items" else []
            if pairs:
                return [(ast.Tuple([key, value]), around) for key, value, around in pairs]
        thing = self._resolver.find(expression, scope)
        if isinstance(thing, Defined) and depth <= DEPTH:
            if thing.kind is Kind.CLASS:
                return [(ast.Constant(value), scope) for value in self._members(thing, depth)]
            if thing.kind is Kind.VALUE and len(thing.bindings) == 1:
                return self._elements(thing.bindings[0].value, thing.scope, depth + 1)
        raise NotLiteralError

    def pairs(self, expression: ast.AST, scope: Scope, depth: int = 0) -> Iterator[tuple[ast.expr, ast.expr, Scope]]:
        """Yield keys and values of a dictionary as far as they are written out, with the scope that they stand in."""
        if isinstance(expression, ast.Dict):
            for key, value in zip(expression.keys, expression.values, strict=True):
                steps = depth + expression.keys.count(None)
                yield from self.pairs(value, scope, steps) if key is None else [(key, value, scope)]
        elif isinstance(expression, ast.DictComp):
            yield expression.key, expression.value, scope
        elif isinstance(expression, ast.Call) and self._resolver.dotted(expression.func, scope) == "builtins.dict":
            yield from ((ast.Constant(one.arg), one.value, scope) for one in expression.keywords if one.arg is not None)
        elif isinstance(expression, ast.Name | ast.Attribute) and depth <= DEPTH:
            thing = self._resolver.find(expression, scope)
            if isinstance(thing, Defined) and thing.kind is Kind.VALUE:
                yield from self.pairs(thing.bindings[-1].value, thing.scope, depth + 1)


def annotated(annotation: ast.AST) -> ast.AST:
    """Return the type that an annotation names: without quotes, and without the ``None`` of an optional one."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            body = parse(annotation.value.strip()).body
        except ReadError:
            return annotation
        annotation = body[0].value if body and isinstance(body[0], ast.Expr) else annotation
    while isinstance(annotation, ast.BinOp):
        annotation = annotation.left
    return annotation


def described(expression: ast.AST) -> str:
    """Return what kind of expression this is, in words."""
    if isinstance(expression, ast.Name):
        return f"the variable {expression.id}"
    if isinstance(expression, ast.Attribute):
        return f"the attribute {expression.attr}"
    if isinstance(expression, ast.BinOp):
        return "built with %" if isinstance(expression.op, ast.Mod) else "a concatenation"
    if isinstance(expression, ast.Call):
        formats = isinstance(expression.func, ast.Attribute) and expression.func.attr == "format"
        return "built with .format()" if formats else "the result of a call"
    if isinstance(expression, ast.Subscript):
        return "an item of a collection"
    if isinstance(expression, ast.Starred):
        return "unpacked from a variable"
    return "an expression"
