"""Checks one file: finds what it alone shows, and collects facts for what all files together show."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from llm_common.lint.blocks import Afterwards, Swallowed, tracker_names
from llm_common.lint.facts import Asking, Facts, FunctionFacts, Key, Named, Registration, Use
from llm_common.lint.frameworks import Frameworks, Role, argument, tracked_everywhere
from llm_common.lint.names import has_suffix, problem_of
from llm_common.lint.resolve import DECORATOR, DEPTH, OURS, TRACKING, Defined, NotLiteralError, Resolver
from llm_common.lint.scopes import Block, Collected, Function, Kind, Scope, collect
from llm_common.reporting.findings import Place, finding


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text, with what is needed to tell places in it."""

    path: str
    """Absolute."""
    shown: str
    """As reports have it."""
    lines: list[str]

    def place(self, node: ast.AST, first_line: int = 0) -> Place:
        """Return where a node stands."""
        line, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        return Place(
            self.shown,
            line,
            self._column(line, getattr(node, "col_offset", 0)),
            end,
            self._column(end, getattr(node, "end_col_offset", 0)),
            first_line,
        )

    def _column(self, line: int, offset: int) -> int:
        """Return a column in characters for one in bytes of UTF-8."""
        text = self.lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


def check(tree: ast.Module, text: Text, resolver: Resolver, *, narrow_excepts: bool) -> Facts:
    """Return what a file shows."""
    collected = collect(tree, text.path)
    resolver.add(collected.scope)
    checker = Checker(text, resolver, collected, Swallowed(resolver, narrow=narrow_excepts))
    checker.run(tree)
    return checker.facts


class Checker:
    """The check of one file."""

    def __init__(self, text: Text, resolver: Resolver, collected: Collected, swallowed: Swallowed) -> None:
        self.facts = Facts()
        self._text = text
        self._resolver = resolver
        self._frameworks = Frameworks(resolver)
        self._collected = collected
        self._swallowed = swallowed
        self._first: dict[int, int] = {}
        """For calls by identity: the line of the statement that they begin."""
        self._decorated: dict[int, Scope] = {}
        """For calls by identity that decorate a function: the scope of that function."""
        self._names: dict[int, list[Named]] = {}
        """For calls of ours by identity: the names given."""
        self._tracking: set[int] = set()
        """The scopes, by identity, in which something is tracked, however deep."""
        self._blocks: list[tuple[Block, Scope]] = []
        self._mine: dict[int, list[Block]] = {}
        """The same blocks by the identity of their scope."""
        self._wholes: set[int] = set()
        """The blocks, by identity, of which a function consists."""
        self._trackers: dict[int, frozenset[str]] = {}
        self._swallowing: set[int] = set()

    def run(self, tree: ast.Module) -> None:
        """Check everything."""
        self._prepare()
        for call, scope in self._collected.calls:
            self._call(call, scope)
        for block, scope in self._collected.blocks:
            self._block(block, scope)
        for statement, scope in self._collected.statements:
            self._statement(statement, scope)
        for node, around, inner in self._collected.classes:
            self._class(node, around, inner)
        for function, around, inner in self._collected.functions:
            self._function(function, around, inner)
        self._inside_blocks()
        self._after_blocks(tree)

    def _report(self, node: ast.AST, code: str, message: str, fix: str, first_line: int = 0) -> None:
        self.facts.findings.append(finding(self._text.place(node, first_line), code, message, fix))

    def _prepare(self) -> None:
        for block, _ in self._collected.blocks:
            self._first.update((id(item.context_expr), block.lineno) for item in block.items)
        for node, _, inner in self._collected.functions:
            for decorator in node.decorator_list:
                self._first[id(decorator)] = decorator.lineno
                self._decorated[id(decorator)] = inner

    # calls

    def _call(self, call: ast.Call, scope: Scope) -> None:
        dotted = self._resolver.dotted(call.func, scope)
        if dotted in OURS:
            self._ours(call, scope)
        self.facts.covered.update(tracked_everywhere(dotted))
        registers = self._frameworks.call(call, dotted, scope)
        if registers:
            self._register(registers[0], registers[1], scope)

    def _ours(self, call: ast.Call, scope: Scope) -> None:
        """Check the name in a call of ours, and keep what it is the name of."""
        inside: Scope | None = scope
        while inside:
            self._tracking.add(id(inside))
            inside = inside.parent
        name, first = self._argument(call), self._first.get(id(call), 0)
        if name is None:
            missing = "write a text in snake_case, such as 'menu_handler'"
            self._report(call, "LC101", "the action has no name", missing, first)
            return
        try:
            values = self._resolver.literals(name, scope)
        except NotLiteralError as problem:
            fix = "write the name as a literal, and what varies into a log or a trace"
            self._report(name, "LC103", f"the name isn't a literal but {problem}", fix, first)
            return
        place = self._text.place(name, first)
        self._names[id(call)] = [Named(value, place) for value in values if isinstance(value, str)]
        for value in values:
            if wrong := problem_of(value):
                self.facts.findings.append(finding(place, *wrong))
        self._use(call, scope)

    def _argument(self, call: ast.Call) -> ast.expr | None:
        name = argument(call, 0, "name")
        if name is None and call.args:
            return call.args[0]  # *names
        return name or next((one.value for one in call.keywords if one.arg is None), None)

    def _use(self, call: ast.Call, scope: Scope) -> None:
        decorated = self._decorated.get(id(call))
        while scope.kind == "class" and scope.parent:
            scope = scope.parent
        if decorated:
            thing, words = (self._text.path, decorated.qualname, "function"), f"the function {decorated.qualname}"
        else:
            inside = "" if scope.kind == "module" else f" in {scope.qualname}"
            thing, words = (self._text.path, scope.qualname, "block"), f"a block{inside}"
        self.facts.uses.extend(Use(named.name, named.place, thing, words) for named in self._names[id(call)])

    def _register(self, role: Role, target: ast.expr, scope: Scope) -> None:
        """Keep what a framework is given."""
        function, tracking = self._target(target, scope)
        if tracking is not None:
            for named in self._names_of(tracking[0], tracking[1], target):
                self.facts.asking.append(Asking(role, named, None))
        elif function is not None or isinstance(target, ast.Lambda):
            self.facts.registrations.append(Registration(role, function, self._text.place(target)))

    def _names_of(self, call: ast.Call, scope: Scope, target: ast.expr) -> list[Named]:
        """Return the names in a call of ours that may stand in another file."""
        if id(call) in self._names:
            return self._names[id(call)]
        name = self._argument(call)
        try:
            values = [] if name is None else self._resolver.literals(name, scope)
        except NotLiteralError:
            values = []  # reported where it stands
        return [Named(value, self._text.place(target)) for value in values if isinstance(value, str)]

    def _target(
        self, target: ast.AST, scope: Scope, depth: int = 0
    ) -> tuple[Key | None, tuple[ast.Call, Scope] | None]:
        """Return the function that an expression means, or else the call of ours that tracks it there."""
        if isinstance(target, ast.Call):
            if isinstance(target.func, ast.Call) and self._resolver.ours(target.func.func, scope) == DECORATOR:
                return None, (target.func, scope)
            if target.args and self._resolver.dotted(target.func, scope) == "functools.partial":
                return self._target(target.args[0], scope, depth + 1)
        thing = self._resolver.find(target, scope)
        if isinstance(thing, Defined):
            last = thing.bindings[-1].value
            if thing.kind is Kind.FUNCTION:
                return (thing.scope.path, last), None
            if thing.kind is Kind.VALUE and depth < DEPTH:
                return self._target(last, thing.scope, depth + 1)
        return None, None

    # blocks and statements

    def _block(self, block: Block, scope: Scope) -> None:
        ours = []
        for item in block.items:
            expression = item.context_expr
            if isinstance(expression, ast.Call):
                kind = self._resolver.ours(expression.func, scope)
                if kind == DECORATOR:
                    fix = "write action_tracking(…) here; the decorator is for functions"
                    self._report(expression, "LC307", "the decorator isn't a context manager", fix, block.lineno)
                if kind == TRACKING:
                    ours.append(item)
            elif kind := self._resolver.ours(expression, scope):
                message = f"{kind} without parentheses isn't a context manager"
                self._report(expression, "LC307", message, 'write action_tracking("…")', block.lineno)
            elif isinstance(expression, ast.Name) and self._made_by_ours(expression, scope):
                ours.append(item)
        if ours:
            self._blocks.append((block, scope))
            self._mine.setdefault(id(scope), []).append(block)
            self._trackers[id(block)] = tracker_names(block, ours)
            if isinstance(block, ast.AsyncWith):
                fix = "write a plain 'with', in async code as well"
                self._report(ours[0].context_expr, "LC304", "a tracker doesn't take 'async with'", fix, block.lineno)

    def _made_by_ours(self, name: ast.Name, scope: Scope) -> bool:
        thing = self._resolver.find(name, scope)
        return isinstance(thing, Defined) and any(
            binding.kind is Kind.VALUE
            and isinstance(binding.value, ast.Call)
            and self._resolver.ours(binding.value.func, thing.scope) == TRACKING
            for binding in thing.bindings
        )

    def _statement(self, node: ast.Expr, scope: Scope) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        kind = self._resolver.ours(value.func, scope) if isinstance(value, ast.Call) else ""
        if kind == TRACKING:
            fix = "write 'with' before it, and put what it is for inside"
            self._report(node, "LC303", "this tracker is never entered, so nothing is counted", fix)
        elif kind == DECORATOR:
            fix = "write @ before it, above the function that it is for"
            self._report(node, "LC303", "this decorator decorates nothing, so nothing is counted", fix)

    # functions

    def _decorators(self, node: Function | ast.ClassDef, scope: Scope) -> tuple[list[int], list[int], Role | None]:
        """Check decorators; return the positions of ours, of those that register, and as what these do."""
        ours, registering, role = [], [], None
        for number, decorator in enumerate(node.decorator_list):
            called = isinstance(decorator, ast.Call)
            kind = self._resolver.ours(decorator.func if isinstance(decorator, ast.Call) else decorator, scope)
            first = decorator.lineno
            if kind == TRACKING:
                fix = "write @action_tracking_decorator(…)"
                self._report(decorator, "LC305", "action_tracking is no decorator", fix, first)
                ours.append(number)
            elif kind == DECORATOR:
                if not called:
                    fix = f'write @action_tracking_decorator("{node.name}_…"), with the suffix for what it is'
                    self._report(decorator, "LC306", "the decorator lacks the name of the action", fix, first)
                ours.append(number)
            elif found := self._frameworks.decorator(decorator, scope):
                registering.append(number)
                role = found
        return ours, registering, role

    def _class(self, node: ast.ClassDef, scope: Scope, inner: Scope) -> None:
        """Check the decorators of a class, which may make a handler of it."""
        _, _, role = self._decorators(node, scope)
        handle = inner.names.get("handle", [])
        if role and handle and handle[-1].kind is Kind.FUNCTION:
            key = (self._text.path, handle[-1].value)
            self.facts.registrations.append(Registration(role, key, self._header(node)))

    def _header(self, node: Function | ast.ClassDef) -> Place:
        """Return the place of a function or class: its first line, not its body."""
        whole = self._text.place(node)
        end = len(self._text.lines[whole.line - 1].rstrip()) + 1
        return Place(whole.path, whole.line, whole.column, whole.line, end)

    def _function(self, node: Function, scope: Scope, inner: Scope) -> None:
        ours, registering, role = self._decorators(node, scope)
        key = (self._text.path, node.lineno)
        header = self._header(node)
        for number in ours:
            if registering and number < registering[-1]:
                below = node.decorator_list[registering[-1]].lineno
                message = f"the function is registered in line {below} before this decorator tracks it"
                decorator = node.decorator_list[number]
                self._report(decorator, "LC308", message, f"move it below line {below}", decorator.lineno)
        if role:
            self.facts.registrations.append(Registration(role, key, header))
        decorating = [node.decorator_list[number] for number in ours]
        names = [named for decorator in decorating for named in self._names.get(id(decorator), [])]
        mine = self._mine.get(id(inner), [])
        whole = None if ours else whole_body(node.body, mine)
        if whole:
            self._wholes.add(id(whole))
            names = [named for item in whole.items for named in self._names.get(id(item.context_expr), [])]
        if ours or whole:
            self._asks(node.body, inner, names, key)
        if ours:
            self._swallows(node.body, inner)
        self.facts.functions[key] = FunctionFacts(
            node.name, header, bool(ours or mine), id(inner) in self._tracking, tuple(names), self._own(node, scope)
        )

    def _own(self, node: Function, scope: Scope) -> tuple[Key, ...]:
        """Return the decorators of a function that the project itself defines."""
        found = []
        for decorator in node.decorator_list:
            thing = self._resolver.find(decorator.func if isinstance(decorator, ast.Call) else decorator, scope)
            if isinstance(thing, Defined) and thing.kind is Kind.FUNCTION:
                found.append((thing.scope.path, thing.bindings[-1].value))
        return tuple(found)

    def _asks(self, body: list[ast.stmt], scope: Scope, names: Iterable[Named], key: Key | None) -> None:
        """Keep that a tracked body asks a model, where its name doesn't say what it is."""
        plain = [named for named in names if problem_of(named.name) is None and not has_suffix(named.name)]
        role = self._frameworks.model(body, scope) if plain else None
        if role:
            self.facts.asking.extend(Asking(role, named, key) for named in plain)

    # what happens inside of blocks and after them

    def _swallows(self, body: list[ast.stmt], scope: Scope) -> None:
        trackers: frozenset[str] = frozenset().union(*self._trackers.values())
        for node in self._swallowed.find(body, trackers, scope):
            if id(node) not in self._swallowing:
                self._swallowing.add(id(node))
                message = "an exception is swallowed in a tracked block, which counts as ok"
                self._report(node, "LC301", message, "call to_fail() on the tracker there, or raise")

    def _inside_blocks(self) -> None:
        for block, scope in self._blocks:
            self._swallows(block.body, scope)
            if len(block.body) == 1 and id(block) not in self._wholes:
                names = [named for item in block.items for named in self._names.get(id(item.context_expr), [])]
                self._asks(block.body, scope, names, None)

    def _after_blocks(self, tree: ast.Module) -> None:
        named = [(block, scope) for block, scope in self._blocks if self._trackers[id(block)]]
        scopes = {id(scope) for _, scope in named}
        bodies = [(tree.body, self._collected.scope)]
        bodies += [(node.body, inner) for node, _, inner in self._collected.functions]
        for body, scope in bodies:
            if id(scope) in scopes:
                afterwards = Afterwards(self._trackers)
                afterwards.run(body, {})
                for node, line in afterwards.found.values():
                    message = f"the block of this tracker, which began in line {line}, has ended"
                    self._report(node, "LC302", message, "move it into the block")


def whole_body(body: list[ast.stmt], blocks: list[Block]) -> Block | None:
    """Return the tracked block that a function consists of, but for its docstring, assignments and a ``return``."""
    rest = [
        statement
        for number, statement in enumerate(body)
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return)
        and not (number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    return next((block for block in blocks if rest == [block]), None)
