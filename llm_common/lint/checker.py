"""Checks one file: finds what it alone shows, and collects facts for what all files together show."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import NoneType

from llm_common.action_names import AGENT, LLM_CALL, with_suffix
from llm_common.lint.blocks import Afterwards, Swallowed, taken_up, tracker_names
from llm_common.lint.facts import Asking, Facts, FunctionFacts, Given, Key, Named, Registration, Tracked, Use
from llm_common.lint.findings import Place, finding
from llm_common.lint.frameworks import Frameworks, argument
from llm_common.lint.known import (
    AIOGRAM,
    AIOGRAM_HANDLER,
    DECORATOR,
    FLAG,
    MAPPINGS,
    OURS,
    PARAMETERS,
    TELEGRAM,
    TRACK_HANDLERS,
    TRACKING,
    Role,
)
from llm_common.lint.names import has_suffix, problem_of
from llm_common.lint.resolve import DEPTH, Defined, Resolver
from llm_common.lint.routing import ANYWHERE, Covered
from llm_common.lint.scopes import Block, Collected, Function, Kind, Scope, collect
from llm_common.lint.values import NotLiteralError, Values


@dataclass(frozen=True, slots=True)
class Text:
    """A file's text, with what is needed to tell places in it."""

    path: str
    """Absolute."""
    shown: str
    """As reports have it."""
    lines: list[str]

    def place(self, node: ast.AST) -> Place:
        """Return where a node stands."""
        line, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        return Place(
            self.shown,
            line,
            self._column(line, getattr(node, "col_offset", 0)),
            end,
            self._column(end, getattr(node, "end_col_offset", 0)),
        )

    def _column(self, line: int, offset: int) -> int:
        """Return a column in characters for one in bytes of UTF-8."""
        text = self.lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


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
        self._values = Values(resolver)
        self._frameworks = Frameworks(resolver, self._values)
        self._collected = collected
        self._swallowed = swallowed
        self._decorated: dict[int, Scope] = {}
        """For calls by identity that decorate a function: the scope of that function."""
        self._names: dict[int, list[Named]] = {}
        """For calls of ours by identity: the names given."""
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
        self._prepare()
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

    def _prepare(self) -> None:
        for node, _, inner in self._collected.functions:
            self._decorated.update((id(decorator), inner) for decorator in node.decorator_list)

    # calls

    def _call(self, call: ast.Call, scope: Scope) -> None:
        dotted = self._resolver.dotted(call.func, scope)
        if dotted in OURS:
            self._ours(call, dotted, scope)
        self._integration(call, dotted, scope)
        route = self._frameworks.covered(call, scope)
        if route:
            self.facts.covered.append(Covered(AIOGRAM, self._text.shown, route))
        self.facts.included.extend(self._frameworks.included(call, scope))
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
        name = self._argument(call)
        if name is None:
            self._report(call, "LC101", "the action has no name", "write a text in snake_case, such as 'menu_handler'")
            return
        names = self._checked(name, scope)
        if names is not None:
            self._names[id(call)] = names
            self._use(names, *self._thing_at(call, scope, "block", "a block"))

    def _checked(
        self, name: ast.expr, scope: Scope, *, place: ast.expr | None = None, but: tuple[type, ...] = ()
    ) -> list[Named] | None:
        """Check a name, and return what it may be: nothing of the types ``but``, ``None`` where that can't be told."""
        where = self._text.place(place or name)
        try:
            values = [value for value in self._values.literals(name, scope) if not isinstance(value, but)]
        except NotLiteralError as problem:
            fix = "write the name as a literal, and what varies into a log or a trace"
            self.facts.findings.append(finding(where, "LC103", f"the name isn't a literal but {problem}", fix))
            return None
        self.facts.findings.extend(finding(where, *wrong) for value in values if (wrong := problem_of(value)))
        return [Named(value, where) for value in values if isinstance(value, str)]

    def _argument(self, call: ast.Call) -> ast.expr | None:
        name = argument(call, 0, "name")
        if name is None and call.args:
            return call.args[0]  # *names
        return name or next((one.value for one in call.keywords if one.arg is None), None)

    def _use(self, names: Iterable[Named], thing: Tracked, words: str, overrides: tuple[Tracked, ...] = ()) -> None:
        self.facts.uses.extend(Use(named.name, named.place, thing, words, overrides) for named in names)

    def _thing_at(self, call: ast.Call, scope: Scope, kind: str, what: str) -> tuple[Tracked, str, tuple[Tracked, ...]]:
        """Return what a call tracks: the function that it decorates, or something of this kind where it stands."""
        decorated = self._decorated.get(id(call))
        while scope.kind == "class" and scope.parent:
            scope = scope.parent
        inside = "" if scope.kind == "module" else f" in {scope.qualname}"
        function, words = (decorated, f"the function {decorated.qualname}") if decorated else (scope, what + inside)
        kind = "function" if decorated else kind
        return (function.path, function.qualname, kind), words, tuple(self._overridden(function, kind))

    def _overridden(self, method: Scope, kind: str) -> Iterator[Tracked]:
        """Yield what a method would be in the classes that its own inherits from."""
        if method.parent and method.parent.kind == "class":
            name = method.qualname.rpartition(".")[2]
            for one in self._resolver.lineage(method.parent):
                if isinstance(one, Scope) and one is not method.parent:
                    yield one.path, f"{one.qualname}.{name}", kind

    # names that integrations are given

    def _integration(self, call: ast.Call, dotted: str, scope: Scope) -> None:
        """Check the names in a call of an integration, and keep what they are the names of."""
        for parameter in PARAMETERS.get(dotted, ()):
            name = argument(call, parameter.position, parameter.keyword)
            names = self._checked(name, scope, but=(NoneType,) if parameter.optional else ()) if name else None
            for named in names or ():
                suffixes = (AGENT, LLM_CALL) if parameter.extended and not wrong_for_agent(named.name) else ()
                if not suffixes:
                    self.facts.asking.append(Asking(parameter.role, named, None))
                used = [named.name] if not suffixes else [named.name.removesuffix(AGENT) + one for one in suffixes]
                what = dotted.rpartition(".")[2]
                thing = self._thing_at(call, scope, what, f"a call of {what}")
                self._use((Named(one, named.place) for one in used), *thing)
        if dotted in MAPPINGS:
            self._mapping(call, MAPPINGS[dotted], scope)
        if dotted == TRACK_HANDLERS:
            self.facts.covered.append(Covered(TELEGRAM, self._text.shown))
        if AIOGRAM in scope.roots:
            self._flags(call, dotted, scope)

    def _mapping(self, call: ast.Call, roles: tuple[Role, ...], scope: Scope) -> None:
        """Check the names that a dictionary has for functions or jobs."""
        given = argument(call, None, "names")
        for key, value, around in self._values.pairs(given, scope) if given else ():
            names = self._checked(value, around, place=value if around.path == self._text.path else given)
            function, _ = self._target(key, around)
            self.facts.given.extend(Given(function, named, roles) for named in names or ())
            self._use(names or (), *self._thing_named(key, around))

    def _flags(self, call: ast.Call, dotted: str, scope: Scope) -> None:
        """Check the flag of a handler of aiogram that names its action."""
        given = argument(call, None, "flags")
        flags = list(self._values.pairs(given, scope)) if given else []
        if dotted == f"aiogram.flags.{FLAG}" and call.args:
            flags.append((ast.Constant(FLAG), call.args[0], scope))
        for key, value, around in flags:
            if isinstance(key, ast.Constant) and key.value == FLAG:
                place = value if around.path == self._text.path else given
                names = self._checked(value, around, place=place, but=(NoneType, bool)) or ()
                self.facts.asking.extend(Asking(AIOGRAM_HANDLER, named, None) for named in names)
                target = argument(call, 0, "callback")
                if target is None or id(call) in self._decorated:
                    self._use(names, *self._thing_at(call, scope, "handler", "a handler"))
                else:
                    self._use(names, *self._thing_named(target, scope))

    def _thing_named(self, expression: ast.expr, scope: Scope) -> tuple[Tracked, str]:
        """Return what is tracked where an integration is told of it by a function, or by a text."""
        thing = self._resolver.find(expression, scope)
        if isinstance(thing, Defined) and thing.kind is Kind.FUNCTION:
            qualname = thing.scope.inner("function", thing.name).qualname
            return (thing.scope.path, qualname, "function"), f"the function {qualname}"
        text = ast.unparse(expression)
        return ("", text, "job"), text

    def _register(self, call: ast.Call, role: Role, target: ast.expr, scope: Scope) -> None:
        """Keep what a framework is given."""
        function, tracking = self._target(target, scope)
        if tracking is not None:
            for named in self._names_of(tracking[0], tracking[1], target):
                self.facts.asking.append(Asking(role, named, None))
        elif function is not None or isinstance(target, ast.Lambda):
            self._registered(role, function, self._text.place(target), call, scope)

    def _registered(self, role: Role, key: Key | None, place: Place, by: ast.expr, scope: Scope) -> None:
        route = self._frameworks.route(by, scope) if role is AIOGRAM_HANDLER else ANYWHERE
        self.facts.registrations.append(Registration(role, key, place, route))

    def _names_of(self, call: ast.Call, scope: Scope, target: ast.expr) -> list[Named]:
        """Return the names in a call of ours that may stand in another file."""
        if id(call) in self._names:
            return self._names[id(call)]
        name = self._argument(call)
        try:
            values = [] if name is None else self._values.literals(name, scope)
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
                    self._report(expression, "LC307", "the decorator isn't a context manager", fix)
                if kind == TRACKING:
                    ours.append(item)
            elif kind := self._resolver.ours(expression, scope):
                message = f"{kind} without parentheses isn't a context manager"
                self._report(expression, "LC307", message, 'write action_tracking("…")')
            elif isinstance(expression, ast.Name) and self._made_by_ours(expression, scope):
                ours.append(item)
        if ours:
            calls = [item.context_expr for item in ours if isinstance(item.context_expr, ast.Call)]
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
        entered, stack = call.args[0], call.func.value
        names = frozenset(name for name, bound in scope.names.items() if any(one.value is call for one in bound))
        if isinstance(entered, ast.Call) and self._resolver.ours(entered.func, scope) == TRACKING:
            calls = [entered]
        elif isinstance(entered, ast.Name) and self._made_by_ours(entered, scope):
            calls, names = [], names | {entered.id}
        else:
            return
        self._entered.add(id(scope))
        for block, around in reversed(self._collected.blocks):
            given = [item.optional_vars for item in block.items]
            named = any(
                isinstance(one, ast.Name) and isinstance(stack, ast.Name) and one.id == stack.id for one in given
            )
            if named and around is scope and block.lineno <= call.lineno <= (block.end_lineno or 0):
                self._enters(block, scope, calls, names)
                break

    def _names_in(self, block: Block) -> list[Named]:
        """Return the names that a block is tracked as."""
        return [named for call in self._entering[id(block)] for named in self._names.get(id(call), [])]

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
        names = [named for decorator in ours for named in self._names.get(id(decorator), [])]
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
            ours = [number for number, item in enumerate(block.items) if item.context_expr in self._entering[id(block)]]
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
        for call, scope in self._trackings:
            names = [name for name, bound in scope.names.items() if any(one.value is call for one in bound)]
            if id(scope) in nodes and names and not any(taken_up(nodes[id(scope)], name) for name in names):
                self._report_never_entered(call)

    def _report_never_entered(self, node: ast.AST) -> None:
        fix = "write 'with' before it, and put what it is for inside"
        self._report(node, "LC303", "this tracker is never entered, so nothing is counted", fix)


def wrong_for_agent(name: str) -> bool:
    """Return whether a name has another suffix than that of an agent, to which an integration would add its own."""
    return has_suffix(name) and with_suffix(name, AGENT) != name


def whole_body(body: list[ast.stmt], blocks: list[Block]) -> Block | None:
    """Return the tracked block that a function consists of, but for its docstring, assignments and a ``return``."""
    rest = [
        statement
        for number, statement in enumerate(body)
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return)
        and not (number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    return next((block for block in blocks if rest == [block]), None)
