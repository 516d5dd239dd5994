"""What happens inside of a tracked block, and after it."""

import ast
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import chain

from llm_common.lint.resolve import Resolver
from llm_common.lint.scopes import BLOCKS, FUNCTIONS, Scope, within

BROAD = frozenset({"builtins.Exception", "builtins.BaseException"})
EXITS = frozenset({"sys.exit", "os._exit", "os.abort", "builtins.exit", "builtins.quit"})
TRIES = (ast.Try, ast.TryStar)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
TRACKER_METHODS = frozenset({"first_item", "size", "to_fail", "tokens"})

Ended = dict[str, int]
"""Names of trackers whose block has ended, with the line where it began."""


class Swallowed:
    """Finds exceptions that a tracked block handles without an error being counted."""

    def __init__(self, resolver: Resolver, *, narrow: bool) -> None:
        self._resolver = resolver
        self._narrow = narrow

    def find(self, body: list[ast.stmt], trackers: frozenset[str], scope: Scope) -> Iterator[ast.AST]:
        """Yield the ``except`` clauses and the ``suppress()`` calls of a block whose trackers have these names."""
        nodes = list(within(body))
        items = [item for node in nodes if isinstance(node, BLOCKS) for item in node.items]
        calls = [item.context_expr for item in items if isinstance(item.context_expr, ast.Call)]
        yield from (call for call in calls if self._suppresses(call, scope))
        handlers = [(handler, node) for node in nodes if isinstance(node, TRIES) for handler in node.handlers]
        silent = [
            (handler, node)
            for handler, node in handlers
            if self._catches(handler.type, scope) and not self._answers(handler.body, trackers, scope)
        ]
        if silent:
            looped = {id(inner) for node in nodes if isinstance(node, LOOPS) for inner in within(node.body)}
            answers = answering(nodes)
            for handler, around in silent:
                if not answered_later(handler, around.end_lineno or 0, answers, in_loop=id(around) in looped):
                    yield handler

    def _suppresses(self, call: ast.Call, scope: Scope) -> bool:
        """Return whether a call is a ``suppress()`` to report."""
        known = self._resolver.dotted(call.func, scope) == "contextlib.suppress"
        return known and any(self._catches(argument, scope) for argument in call.args)

    def _catches(self, kind: ast.expr | None, scope: Scope) -> bool:
        """Return whether a clause for ``kind`` is one to report."""
        if kind is None or self._narrow:
            return True
        kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        return any(self._resolver.dotted(one, scope) in BROAD for one in kinds)

    def _answers(self, body: list[ast.stmt], trackers: frozenset[str], scope: Scope) -> bool:
        """Return whether a clause raises, says that the block failed, or gives the tracker to what may say so."""
        for node in within(body):
            if isinstance(node, ast.Raise) or fails(node):
                return True
            if isinstance(node, ast.Call):
                given = (*node.args, *(keyword.value for keyword in node.keywords))
                if any(isinstance(one, ast.Name) and one.id in trackers for one in given):
                    return True
                if self._resolver.dotted(node.func, scope) in EXITS:
                    return True
        return False


def fails(node: ast.AST) -> bool:
    """Return whether ``node`` is a mention of ``to_fail``."""
    return isinstance(node, ast.Attribute) and node.attr == "to_fail"


def answering(nodes: Iterable[ast.AST]) -> list[tuple[int, set[str]]]:
    """Return the statements that may raise or call ``to_fail``: their lines, and the names that they mention."""
    found = []
    for node in nodes:
        if isinstance(node, ast.stmt):
            inside = list(within([node]))
            if any(isinstance(one, ast.Raise) or fails(one) for one in inside):
                found.append((node.lineno, {one.id for one in inside if isinstance(one, ast.Name)}))
    return found


def answered_later(
    handler: ast.ExceptHandler, end: int, answers: Iterable[tuple[int, set[str]]], *, in_loop: bool
) -> bool:
    """Return whether code after a ``try``, which ends in line ``end``, may still raise or fail for what it caught.

    It may, where the ``try`` is repeated in a loop, or where the code looks at what the clause left behind.
    """
    left = set(chain.from_iterable(left_behind(node) for node in within(handler.body)))
    return any(line > end and (in_loop or names & left) for line, names in answers)


def left_behind(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node changes."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        yield node.value.id  # ``failures.append(…)``, ``state.failed = True``


def tracker_names(block: ast.With | ast.AsyncWith, ours: Iterable[ast.withitem]) -> frozenset[str]:
    """Return the names that a block gives to its trackers."""
    names = set()
    for item in ours:
        if isinstance(item.optional_vars, ast.Name):
            names.add(item.optional_vars.id)
        elif isinstance(item.context_expr, ast.Name):
            names.add(item.context_expr.id)
    return frozenset(names)


class Afterwards:
    """Finds trackers that are used after their block, following the order in which code runs."""

    def __init__(self, trackers: dict[int, frozenset[str]]) -> None:
        self._trackers = trackers
        """For each block of ours, by identity, the names of its trackers."""
        self.found: dict[int, tuple[ast.Attribute, int]] = {}
        """Each use, by identity, with the line where the block began."""

    def run(self, body: Iterable[ast.stmt], ended: Ended) -> Ended | None:
        """Follow statements; return what has ended after them, or ``None`` where the code doesn't go on."""
        for statement in body:
            after = self._step(statement, ended)
            if after is None:
                return None
            ended = after
        return ended

    def _step(self, statement: ast.stmt, ended: Ended) -> Ended | None:
        if isinstance(statement, BLOCKS):
            ended = self._look(statement.items, ended)
            after = self.run(statement.body, ended)
            names = self._trackers.get(id(statement), frozenset())
            return None if after is None else after | dict.fromkeys(names, statement.lineno)
        if isinstance(statement, ast.If):
            ended = self._look([statement.test], ended)
            return both(self.run(statement.body, ended), self.run(statement.orelse, ended))
        if isinstance(statement, ast.Match):
            none_fits: Ended | None = self._look([statement.subject], ended)
            ways = [self.run(case.body, self._look([case.pattern], ended)) for case in statement.cases]
            return reduce(both, ways, none_fits)
        if isinstance(statement, LOOPS):
            heads = [statement.test] if isinstance(statement, ast.While) else [statement.iter, statement.target]
            ended = self._look(heads, ended)
            after = self.run(statement.body, ended)
            return self.run(statement.orelse, ended | (after or {}))
        if isinstance(statement, TRIES):
            return self._try(statement, ended)
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            return {name: line for name, line in ended.items() if name != statement.name}
        ended = self._look([statement], ended)
        return None if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue) else ended

    def _try(self, statement: ast.Try | ast.TryStar, ended: Ended) -> Ended | None:
        inside: Ended = {}
        for node in within(statement.body):
            if id(node) in self._trackers:
                inside |= dict.fromkeys(self._trackers[id(node)], getattr(node, "lineno", 0))
        whole = self.run(statement.body, ended)
        after = None if whole is None else self.run(statement.orelse, whole)
        for handler in statement.handlers:
            after = both(after, self.run(handler.body, ended | inside))
        last = self.run(statement.finalbody, after if after is not None else ended | inside)
        return None if after is None else last

    def _look(self, nodes: Iterable[ast.AST], ended: Ended) -> Ended:
        """Keep the uses in nodes of what has ended; return what has still ended where they bind names anew."""
        if not ended:
            return ended
        for node in within(nodes):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.attr in TRACKER_METHODS and node.value.id in ended:
                    self.found[id(node)] = (node, ended[node.value.id])
            elif (name := bound_by(node)) in ended:
                ended = {other: line for other, line in ended.items() if other != name}
        return ended


def bound_by(node: ast.AST) -> str | None:
    """Return the name that a node binds or deletes."""
    if isinstance(node, ast.Name):
        return None if isinstance(node.ctx, ast.Load) else node.id
    if isinstance(node, ast.MatchAs | ast.MatchStar):
        return node.name
    if isinstance(node, ast.alias):
        return node.asname or node.name
    return node.rest if isinstance(node, ast.MatchMapping) else None


def both(one: Ended | None, other: Ended | None) -> Ended | None:
    """Return what has ended on both of two ways, or on the only one that goes on."""
    if one is None or other is None:
        return other if one is None else one
    return {name: line for name, line in one.items() if name in other}
