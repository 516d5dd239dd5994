"""What happens inside of a tracked block, and after it."""

import ast
from collections.abc import Iterable, Iterator
from functools import reduce

from llm_common.lint.resolve import Defined, Resolver
from llm_common.lint.scopes import BLOCKS, CLOSED, FUNCTIONS, Function, Kind, Scope, within

BROAD = frozenset({"builtins.Exception", "builtins.BaseException"})
EXITS = frozenset({"sys.exit", "os._exit", "os.abort", "builtins.exit", "builtins.quit"})
TRIES = (ast.Try, ast.TryStar)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
CONDITIONS = ("test", "subject", "iter")
MUTATORS = frozenset({"add", "append", "extend", "insert", "setdefault", "update"})
TRACKER_METHODS = frozenset({"first_item", "size", "to_fail", "tokens"})

Ended = dict[str, int]
"""Names of trackers whose block has ended, with the line where it began."""


Suites = tuple[tuple[list[ast.stmt], bool], ...]
"""Code that runs after a piece of code, the nearest first, with whether it does so even after a ``return``."""


class Swallowed:
    """Finds exceptions that a tracked block handles without an error being counted."""

    def __init__(self, resolver: Resolver, functions: Iterable[Function], path: str, *, narrow: bool) -> None:
        self._resolver = resolver
        self._functions = {node.lineno: node for node in functions}
        """Those of the file, by their lines."""
        self._path = path
        self._narrow = narrow

    def find(
        self, body: list[ast.stmt], trackers: frozenset[str], scope: Scope, items: Iterable[ast.withitem] = ()
    ) -> Iterator[ast.AST]:
        """Yield what swallows in a block whose trackers have these names; ``items`` come after them in its ``with``.

        It is ``except`` clauses, ``suppress()`` calls, and statements that leave a ``finally`` clause.
        """
        clauses = Clauses(self, trackers, scope)
        yield from clauses.suppressing(items)
        yield from clauses.inside(body, (), looped=False)

    def suppresses(self, item: ast.withitem, scope: Scope) -> bool:
        """Return whether a context manager is a ``suppress()`` to report."""
        call = item.context_expr
        known = isinstance(call, ast.Call) and self._resolver.dotted(call.func, scope) == "contextlib.suppress"
        return known and any(self.catches(argument, scope) for argument in getattr(call, "args", ()))

    def catches(self, kind: ast.expr | None, scope: Scope) -> bool:
        """Return whether a clause for ``kind`` is one to report."""
        if kind is None or self._narrow:
            return True
        kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
        return any(self._resolver.dotted(one, scope) in BROAD for one in kinds)

    def answers(self, nodes: Iterable[ast.AST], trackers: frozenset[str], scope: Scope) -> bool:
        """Return whether code may raise, say that the block failed, or give the tracker to what may say so."""
        for node in within(nodes):
            if speaks(node):
                return True
            if isinstance(node, ast.Call):
                given = (*node.args, *(keyword.value for keyword in node.keywords))
                if any(isinstance(one, ast.Name) and one.id in trackers for one in given):
                    return True
                if self._resolver.dotted(node.func, scope) in EXITS or self._helps(node, scope):
                    return True
        return False

    def _helps(self, call: ast.Call, scope: Scope) -> bool:
        """Return whether a function of the same file is called that itself answers."""
        thing = self._resolver.find(call.func, scope)
        if not isinstance(thing, Defined) or thing.kind is not Kind.FUNCTION or thing.scope.path != self._path:
            return False
        return any(speaks(node) for node in within(self._functions[thing.bindings[-1].value].body))


class Clauses:
    """The search through one tracked block."""

    def __init__(self, swallowed: Swallowed, trackers: frozenset[str], scope: Scope) -> None:
        self._swallowed = swallowed
        self._trackers = trackers
        self._scope = scope
        self._answering: dict[int, bool] = {}
        """For statements by identity, whether anything in them answers."""
        self._elses: set[int] = set()
        """The ``else`` clauses of loops by identity, up to which a ``break`` skips what follows."""

    def suppressing(self, items: Iterable[ast.withitem]) -> Iterator[ast.AST]:
        """Yield the ``suppress()`` calls to report."""
        yield from (item.context_expr for item in items if self._swallowed.suppresses(item, self._scope))

    def inside(self, suite: list[ast.stmt], later: Suites, *, looped: bool, again: bool = False) -> Iterator[ast.AST]:
        """Yield what swallows in a suite that ``later`` runs after, and that is run ``again`` where it is a loop's."""
        for number, statement in enumerate(suite):
            rest = suite[number + 1 :] + (suite[:number] if again else [])
            after = ((rest, False), *later)
            if isinstance(statement, TRIES):
                yield from self._try(statement, after, looped=looped)
            elif isinstance(statement, LOOPS):
                self._elses.add(id(statement.orelse))
                yield from self.inside(statement.body, ((statement.orelse, False), *after), looped=True, again=True)
                yield from self.inside(statement.orelse, after, looped=looped)
            else:
                if isinstance(statement, BLOCKS) and (silent := list(self.suppressing(statement.items))):
                    yield from [] if self._answered([], statement.body, after, looped=looped) else silent
                for inner in suites_of(statement):
                    yield from self.inside(inner, after, looped=looped)

    def _try(self, statement: ast.Try | ast.TryStar, after: Suites, *, looped: bool) -> Iterator[ast.AST]:
        last = ((statement.finalbody, True), *after)
        for handler in statement.handlers:
            if (
                self._swallowed.catches(handler.type, self._scope)
                and not self._swallowed.answers(handler.body, self._trackers, self._scope)
                and not self._answered(handler.body, [*statement.body, *statement.orelse], last, looped=looped)
            ):
                yield handler
            yield from self.inside(handler.body, last, looped=looped)
        yield from self.inside(statement.body, ((statement.orelse, False), *last), looped=looped)
        yield from self.inside(statement.orelse, last, looped=looped)
        yield from self.inside(statement.finalbody, after, looped=looped)
        if not self._swallowed.answers(statement.finalbody, self._trackers, self._scope):
            yield from leaving(statement.finalbody)

    def _answered(self, clause: list[ast.stmt], tried: list[ast.stmt], later: Suites, *, looped: bool) -> bool:
        """Return whether code that runs later raises or fails for what ``clause`` swallowed of what was ``tried``.

        It does where it does so in any case, where the code is repeated in a loop, or where it depends on what these
        leave behind.
        """
        left = {name for node in within(tried) for name in left_behind(node, MUTATORS)}
        left |= {name for node in within(clause) for name in left_behind(node)}
        returned = bool(clause) and isinstance(clause[-1], ast.Return)
        broken = bool(clause) and isinstance(clause[-1], ast.Break)
        for suite, in_any_case in later:
            skipped = (returned or broken) and not in_any_case
            broken = broken and id(suite) not in self._elses
            if skipped:
                continue
            if self._speaks(suite, left, always=True, told=looped):
                return True
            returned = returned or any(isinstance(one, ast.Return) for one in suite)
        return False

    def _speaks(self, suite: list[ast.stmt], left: set[str], *, always: bool, told: bool) -> bool:
        """Return whether a suite answers, be it ``always`` or where it is ``told`` by one of the names ``left``."""
        for statement in suite:
            if self._may_answer(statement) and self._does_answer(statement, left, always=always, told=told):
                return True
            if isinstance(statement, ast.Return):
                break
        return False

    def _may_answer(self, statement: ast.stmt) -> bool:
        """Return whether anything in a statement answers; remembered, since it is asked for each clause before it."""
        if id(statement) not in self._answering:
            self._answering[id(statement)] = self._swallowed.answers([statement], self._trackers, self._scope)
        return self._answering[id(statement)]

    def _does_answer(self, statement: ast.stmt, left: set[str], *, always: bool, told: bool) -> bool:
        conditions = [getattr(statement, name) for name in CONDITIONS if hasattr(statement, name)]
        looked_at = {ast.unparse(one) for one in within(conditions) if isinstance(one, ast.Name | ast.Attribute)}
        told = told or not left.isdisjoint(looked_at)
        inner = suites_of(statement)
        clauses = range(1, 1 + len(statement.handlers)) if isinstance(statement, TRIES) else ()
        ways = [(one, always and not conditions and number not in clauses) for number, one in enumerate(inner)]
        return any(self._speaks(one, left, always=certain, told=told) for one, certain in ways) or (
            not inner and (always or told)
        )


def speaks(node: ast.AST) -> bool:
    """Return whether ``node`` raises, or is a mention of ``to_fail``."""
    return isinstance(node, ast.Raise) or (isinstance(node, ast.Attribute) and node.attr == "to_fail")


def suites_of(statement: ast.AST) -> list[list[ast.stmt]]:
    """Return the suites of a statement that run where it stands, each clause of a ``try`` right after its body."""
    if isinstance(statement, CLOSED):
        return []
    clauses = [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
    found = [getattr(statement, "body", []), *(clause.body for clause in clauses)]
    return [suite for suite in (*found, *(getattr(statement, name, []) for name in ("orelse", "finalbody"))) if suite]


def leaving(suite: list[ast.stmt], *, looped: bool = False) -> Iterator[ast.AST]:
    """Yield the statements that leave a suite and so end what passes through it."""
    for statement in suite:
        if isinstance(statement, ast.Return) or (isinstance(statement, ast.Break | ast.Continue) and not looped):
            yield statement
        for inner in suites_of(statement):
            yield from leaving(inner, looped=looped or isinstance(statement, LOOPS))


def left_behind(node: ast.AST, methods: Iterable[str] | None = None) -> Iterator[str]:
    """Yield the names that a node changes: by assigning to them, or by one of ``methods`` (of all, if not given)."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield ast.unparse(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        yield ast.unparse(node.value)
    elif isinstance(node, ast.Attribute) and (methods is None or node.attr in methods):
        yield ast.unparse(node.value)  # ``failures.append(…)``


def tracker_names(block: ast.With | ast.AsyncWith, ours: Iterable[ast.withitem]) -> frozenset[str]:
    """Return the names that a block gives to its trackers."""
    names = set()
    for item in ours:
        if isinstance(item.optional_vars, ast.Name):
            names.add(item.optional_vars.id)
        elif isinstance(item.context_expr, ast.Name):
            names.add(item.context_expr.id)
        elif isinstance(item.context_expr, ast.NamedExpr):
            names.add(item.context_expr.target.id)
    return frozenset(names)


def entered(item: ast.withitem) -> ast.expr:
    """Return what an item of a ``with`` enters, without the name that ``:=`` gives it."""
    return item.context_expr.value if isinstance(item.context_expr, ast.NamedExpr) else item.context_expr


def taken_up(body: ast.AST, name: str) -> bool:
    """Return whether code does more with a tracker than to call its methods, such as to enter it or to give it away."""
    methods = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Attribute) and node.attr in TRACKER_METHODS:
            methods.add(id(node.value))  # seen before what it consists of
        elif isinstance(node, ast.Name) and (node.id, type(node.ctx)) == (name, ast.Load) and id(node) not in methods:
            return True
    return False


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
