"""Checks one file: finds what it alone shows, and collects facts for what all files together show."""

import ast
from collections.abc import Iterable

from llm_common.lint.blocks import Afterwards, Swallowed, entered, taken_up, tracker_names
from llm_common.lint.facts import Asking, Facts, FunctionFacts, Key, Named, Registration
from llm_common.lint.frameworks import Frameworks
from llm_common.lint.known import (
    AIOGRAM,
    AIOGRAM_HANDLER,
    DECORATOR,
    OURS,
    TELEGRAM,
    TRACK_HANDLERS,
    TRACKING,
    Role,
)
from llm_common.lint.names import has_suffix, problem_of
from llm_common.lint.naming import Naming
from llm_common.lint.resolve import Defined, Resolver
from llm_common.lint.routing import ANYWHERE, Covered
from llm_common.lint.scopes import Block, Collected, Function, Kind, Scope, collect
from llm_common.lint.text import Text
from llm_common.lint.values import Values
from llm_common.reporting.findings import Place, finding


def check(tree: ast.Module, text: Text, resolver: Resolver, *, narrow_excepts: bool) -> Facts:
    """Return what a file shows."""
    collected = collect(tree, text.path)
    resolver.add(collected.scope)
    functions = [node for node, _, _ in collected.functions]
    checker = Checker(text, resolver, collected, Swallowed(resolver, functions, text.path, narrow=narrow_excepts))
    checker.run(tree)
    return checker.facts


class Checker:
    """The check of one file."""

    def __init__(self, text: Text, resolver: Resolver, collected: Collected, swallowed: Swallowed) -> None:
        self.facts = Facts()
        self._text = text
        self._resolver = resolver
        values = Values(resolver)
        self._frameworks = Frameworks(resolver, values)
        self._collected = collected
        self._swallowed = swallowed
        self._naming = Naming(self.facts, text, resolver, values, collected)
        self._trackings: list[tuple[ast.Call, Scope]] = []
        """The calls that make a tracker."""
        self._entering: dict[int, list[ast.Call]] = {}
        """For each block by identity, the calls whose trackers are entered in it."""
        self._entered: set[int] = set()
        """The scopes, by identity, of functions that enter a tracker otherwise than by a ``with``."""
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
        for call, scope in self._collected.calls:
            self._call(call, scope)
        for block, scope in self._collected.blocks:
            self._block(block, scope)
        for call, scope in self._collected.calls:
            self._enter_context(call, scope)
        for statement, scope in self._collected.statements:
            self._statement(statement, scope)
        for node, around, inner in self._collected.classes:
            self._class(node, around, inner)
        for function, around, inner in self._collected.functions:
            self._function(function, around, inner)
        self._inside_blocks()
        self._after_blocks(tree)
        self._never_entered(tree)

    def _report(self, node: ast.AST, code: str, message: str, fix: str) -> None:
        self.facts.findings.append(finding(self._text.place(node), code, message, fix))

    # calls

    def _call(self, call: ast.Call, scope: Scope) -> None:
        dotted = self._resolver.dotted(call.func, scope)
        if dotted in OURS:
            self._ours(call, dotted, scope)
        self._naming.of_integration(call, dotted, scope)
        if dotted == TRACK_HANDLERS:
            self.facts.covered.append(Covered(TELEGRAM, self._text.shown))
        route = self._frameworks.covered(call, scope)
        if route:
            self.facts.covered.append(Covered(AIOGRAM, self._text.shown, route))
        self.facts.included.extend((self._text.shown, *pair) for pair in self._frameworks.included(call, scope))
        registers = self._frameworks.call(call, dotted, scope)
        if registers:
            self._register(call, registers[0], registers[1], scope)

    def _ours(self, call: ast.Call, dotted: str, scope: Scope) -> None:
        """Check the name in a call of ours, and keep what it is the name of."""
        inside: Scope | None = scope
        while inside:
            self._tracking.add(id(inside))
            inside = inside.parent
        if OURS[dotted] == TRACKING:
            self._trackings.append((call, scope))
        self._naming.of_call(call, scope)

    def _register(self, call: ast.Call, role: Role, target: ast.expr, scope: Scope) -> None:
        """Keep what a framework is given."""
        function, tracking = self._naming.target(target, scope)
        if tracking is not None:
            for named in self._naming.named_elsewhere(tracking[0], tracking[1], target):
                self.facts.asking.append(Asking(role, named, None))
        elif function is not None or isinstance(target, ast.Lambda):
            self._registered(role, function, self._text.place(target), call, scope)

    def _registered(self, role: Role, key: Key | None, place: Place, by: ast.expr, scope: Scope) -> None:
        route = self._frameworks.route(by, scope) if role is AIOGRAM_HANDLER else ANYWHERE
        self.facts.registrations.append(Registration(role, key, place, route))

    # blocks and statements

    def _block(self, block: Block, scope: Scope) -> None:
        ours = []
        for item in block.items:
            expression = entered(item)
            if isinstance(expression, ast.Call):
                kind = self._resolver.ours(expression.func, scope)
                if kind == DECORATOR:
                    fix = "write action_tracking(…) here; the decorator is for functions"
                    self._report(expression, "LC307", "the decorator isn't a context manager", fix)
                if kind == TRACKING:
                    ours.append(item)
            elif kind := self._resolver.ours(expression, scope):
                message = f"{kind} without parentheses isn't a context manager"
                self._report(expression, "LC307", message, 'write action_tracking("…")')
            elif isinstance(expression, ast.Name) and self._made_by_ours(expression, scope):
                ours.append(item)
        if ours:
            calls = [call for item in ours if isinstance(call := entered(item), ast.Call)]
            self._enters(block, scope, calls, tracker_names(block, ours))
            if isinstance(block, ast.AsyncWith):
                fix = "write a plain 'with', in async code as well"
                self._report(ours[0].context_expr, "LC304", "a tracker doesn't take 'async with'", fix)

    def _enters(self, block: Block, scope: Scope, calls: list[ast.Call], names: frozenset[str]) -> None:
        """Keep that a block is tracked, by trackers with these names."""
        if id(block) not in self._entering:
            self._blocks.append((block, scope))
            self._mine.setdefault(id(scope), []).append(block)
        self._entering.setdefault(id(block), []).extend(calls)
        self._trackers[id(block)] = self._trackers.get(id(block), frozenset()) | names

    def _enter_context(self, call: ast.Call, scope: Scope) -> None:
        """Keep that a tracker is entered until the end of the block of an ``ExitStack``."""
        if not (isinstance(call.func, ast.Attribute) and call.func.attr == "enter_context" and call.args):
            return
        given, stack = call.args[0], call.func.value
        names = frozenset(name for name, bound in scope.names.items() if any(one.value is call for one in bound))
        if isinstance(given, ast.Call) and self._resolver.ours(given.func, scope) == TRACKING:
            calls = [given]
        elif isinstance(given, ast.Name) and self._made_by_ours(given, scope):
            calls, names = [], names | {given.id}
        else:
            return
        self._entered.add(id(scope))
        for block, around in reversed(self._collected.blocks):
            stacks = [item.optional_vars for item in block.items]
            named = any(
                isinstance(one, ast.Name) and isinstance(stack, ast.Name) and one.id == stack.id for one in stacks
            )
            if named and around is scope and block.lineno <= call.lineno <= (block.end_lineno or 0):
                self._enters(block, scope, calls, names)
                break

    def _names_in(self, block: Block) -> list[Named]:
        """Return the names that a block is tracked as."""
        return [named for call in self._entering[id(block)] for named in self._naming.names.get(id(call), [])]

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
            self._report_never_entered(node)
        elif kind == DECORATOR:
            fix = "write @ before it, above the function that it is for"
            self._report(node, "LC303", "this decorator decorates nothing, so nothing is counted", fix)

    # functions

    def _decorators(
        self, node: Function | ast.ClassDef, scope: Scope
    ) -> tuple[list[ast.expr], list[tuple[ast.expr, Role]]]:
        """Check decorators; return ours, and those that register with what they do so as."""
        ours, registering = [], []
        for decorator in node.decorator_list:
            called = isinstance(decorator, ast.Call)
            kind = self._resolver.ours(decorator.func if isinstance(decorator, ast.Call) else decorator, scope)
            if kind == TRACKING:
                fix = "write @action_tracking_decorator(…)"
                self._report(decorator, "LC305", "action_tracking is no decorator", fix)
                ours.append(decorator)
            elif kind == DECORATOR:
                if not called:
                    fix = f'write @action_tracking_decorator("{node.name}_…"), with the suffix for what it is'
                    self._report(decorator, "LC306", "the decorator lacks the name of the action", fix)
                ours.append(decorator)
            elif role := self._frameworks.decorator(decorator, scope):
                registering.append((decorator, role))
        return ours, registering

    def _class(self, node: ast.ClassDef, scope: Scope, inner: Scope) -> None:
        """Check the decorators of a class, which may make a handler of it."""
        _, registering = self._decorators(node, scope)
        handle = inner.names.get("handle", [])
        if handle and handle[-1].kind is Kind.FUNCTION:
            for decorator, role in registering:
                self._registered(role, (self._text.path, handle[-1].value), self._header(node), decorator, scope)

    def _header(self, node: Function | ast.ClassDef) -> Place:
        """Return the place of a function or class: its first line, not its body."""
        whole = self._text.place(node)
        end = len(self._text.lines[whole.line - 1].rstrip()) + 1
        return Place(whole.path, whole.line, whole.column, whole.line, end)

    def _function(self, node: Function, scope: Scope, inner: Scope) -> None:
        ours, registering = self._decorators(node, scope)
        key = (self._text.path, node.lineno)
        header = self._header(node)
        for decorator in ours:
            below = registering[-1][0].lineno if registering else 0
            if decorator.lineno < below:
                message = f"the function is registered in line {below} before this decorator tracks it"
                self._report(decorator, "LC308", message, f"move it below line {below}")
        for decorator, role in registering:
            self._registered(role, key, header, decorator, scope)
        names = [named for decorator in ours for named in self._naming.names.get(id(decorator), [])]
        mine = self._mine.get(id(inner), [])
        whole = None if ours else whole_body(node.body, mine)
        if whole:
            self._wholes.add(id(whole))
            names = self._names_in(whole)
        if ours or whole:
            self._asks(node.body, inner, names, key)
        if ours:
            self._swallows(node.body, inner)
        tracked = bool(ours or mine or id(inner) in self._entered)
        self.facts.functions[key] = FunctionFacts(
            node.name, header, tracked, id(inner) in self._tracking, tuple(names), self._own(node, scope)
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

    def _swallows(self, body: list[ast.stmt], scope: Scope, items: Iterable[ast.withitem] = ()) -> None:
        trackers: frozenset[str] = frozenset().union(*self._trackers.values())
        for node in self._swallowed.find(body, trackers, scope, items):
            if id(node) not in self._swallowing:
                self._swallowing.add(id(node))
                message = "an exception is swallowed in a tracked block, which counts as ok"
                if isinstance(node, ast.Return | ast.Break | ast.Continue):
                    word = type(node).__name__.lower()
                    message = f"this {word} in a finally swallows exceptions in a tracked block, which counts as ok"
                    self._report(node, "LC301", message, "move it below the try statement")
                else:
                    self._report(node, "LC301", message, "call to_fail() on the tracker there, or raise")

    def _inside_blocks(self) -> None:
        for block, scope in self._blocks:
            ours = [number for number, item in enumerate(block.items) if entered(item) in self._entering[id(block)]]
            self._swallows(block.body, scope, block.items[ours[0] :] if ours else ())
            if len(block.body) == 1 and id(block) not in self._wholes:
                self._asks(block.body, scope, self._names_in(block), None)

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

    def _never_entered(self, tree: ast.Module) -> None:
        nodes: dict[int, ast.AST] = {id(inner): node for node, _, inner in self._collected.functions}
        nodes[id(self._collected.scope)] = tree
        used = {id(call) for calls in self._entering.values() for call in calls}
        for call, scope in self._trackings:
            if id(call) in used:  # named by := where it is entered
                continue
            names = [name for name, bound in scope.names.items() if any(one.value is call for one in bound)]
            if id(scope) in nodes and names and not any(taken_up(nodes[id(scope)], name) for name in names):
                self._report_never_entered(call)

    def _report_never_entered(self, node: ast.AST) -> None:
        fix = "write 'with' before it, and put what it is for inside"
        self._report(node, "LC303", "this tracker is never entered, so nothing is counted", fix)


def whole_body(body: list[ast.stmt], blocks: list[Block]) -> Block | None:
    """Return the tracked block that a function consists of, but for its docstring, assignments and a ``return``."""
    rest = [
        statement
        for number, statement in enumerate(body)
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return)
        and not (number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    return next((block for block in blocks if rest == [block]), None)
