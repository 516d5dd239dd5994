"""The names of actions in one file: whether they are right, and what they are the names of."""

import ast
from collections.abc import Iterable, Iterator
from types import NoneType

from llm_common.action_names import AGENT, LLM_CALL, with_suffix
from llm_common.lint.facts import Asking, Facts, Given, Key, Named, Tracked, Use
from llm_common.lint.frameworks import argument
from llm_common.lint.known import AIOGRAM, AIOGRAM_HANDLER, DECORATOR, FLAG, MAPPINGS, PARAMETERS, Role
from llm_common.lint.names import has_suffix, problem_of
from llm_common.lint.resolve import DEPTH, Defined, Resolver
from llm_common.lint.scopes import Collected, Kind, Scope
from llm_common.lint.text import Text
from llm_common.lint.values import NotLiteralError, Values
from llm_common.reporting.findings import finding


class Naming:
    """The check of the names in one file."""

    def __init__(self, facts: Facts, text: Text, resolver: Resolver, values: Values, collected: Collected) -> None:
        self.names: dict[int, list[Named]] = {}
        """For calls of ours by identity: the names given."""
        self._facts = facts
        self._text = text
        self._resolver = resolver
        self._values = values
        self._decorated = {id(one): inner for node, _, inner in collected.functions for one in node.decorator_list}
        """For expressions by identity that decorate a function: the scope of that function."""

    def of_call(self, call: ast.Call, scope: Scope) -> None:
        """Check the name in a call of ours, and keep what it is the name of."""
        name = self._argument(call)
        if name is None:
            fix = "write a text in snake_case, such as 'menu_handler'"
            self._facts.findings.append(finding(self._text.place(call), "LC101", "the action has no name", fix))
            return
        names = self._checked(name, scope)
        if names is not None:
            self.names[id(call)] = names
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
            self._facts.findings.append(finding(where, "LC103", f"the name isn't a literal but {problem}", fix))
            return None
        self._facts.findings.extend(finding(where, *wrong) for value in values if (wrong := problem_of(value)))
        return [Named(value, where) for value in values if isinstance(value, str)]

    def _argument(self, call: ast.Call) -> ast.expr | None:
        name = argument(call, 0, "name")
        if name is None and call.args:
            return call.args[0]  # *names
        return name or next((one.value for one in call.keywords if one.arg is None), None)

    def _use(self, names: Iterable[Named], thing: Tracked, words: str, overrides: tuple[Tracked, ...] = ()) -> None:
        self._facts.uses.extend(Use(named.name, named.place, thing, words, overrides) for named in names)

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

    def of_integration(self, call: ast.Call, dotted: str, scope: Scope) -> None:
        """Check the names in a call of an integration, and keep what they are the names of."""
        for parameter in PARAMETERS.get(dotted, ()):
            name = argument(call, parameter.position, parameter.keyword)
            names = self._checked(name, scope, but=(NoneType,) if parameter.optional else ()) if name else None
            for named in names or ():
                suffixes = (AGENT, LLM_CALL) if parameter.extended and not wrong_for_agent(named.name) else ()
                if not suffixes:
                    self._facts.asking.append(Asking(parameter.role, named, None))
                base = named.name.removesuffix(AGENT)
                used = [with_suffix(base, one) for one in suffixes] or [named.name]
                what = dotted.rpartition(".")[2]
                thing = self._thing_at(call, scope, what, f"a call of {what}")
                self._use((Named(one, named.place) for one in used), *thing)
        if dotted in MAPPINGS:
            self._mapping(call, MAPPINGS[dotted], scope)
        if AIOGRAM in scope.roots:
            self._flags(call, dotted, scope)

    def _mapping(self, call: ast.Call, roles: tuple[Role, ...], scope: Scope) -> None:
        """Check the names that a dictionary has for functions or jobs."""
        given = argument(call, None, "names")
        for key, value, around in self._values.pairs(given, scope) if given else ():
            names = self._checked(value, around, place=value if around.path == self._text.path else given)
            function, _ = self.target(key, around)
            self._facts.given.extend(Given(function, named, roles) for named in names or ())
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
                self._facts.asking.extend(Asking(AIOGRAM_HANDLER, named, None) for named in names)
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

    def named_elsewhere(self, call: ast.Call, scope: Scope, target: ast.expr) -> list[Named]:
        """Return the names in a call of ours that may stand in another file."""
        if id(call) in self.names:
            return self.names[id(call)]
        name = self._argument(call)
        try:
            values = [] if name is None else self._values.literals(name, scope)
        except NotLiteralError:
            values = []  # reported where it stands
        return [Named(value, self._text.place(target)) for value in values if isinstance(value, str)]

    def target(self, target: ast.AST, scope: Scope, depth: int = 0) -> tuple[Key | None, tuple[ast.Call, Scope] | None]:
        """Return the function that an expression means, or else the call of ours that tracks it there."""
        if isinstance(target, ast.Call):
            if isinstance(target.func, ast.Call) and self._resolver.ours(target.func.func, scope) == DECORATOR:
                return None, (target.func, scope)
            if target.args and self._resolver.dotted(target.func, scope) == "functools.partial":
                return self.target(target.args[0], scope, depth + 1)
        thing = self._resolver.find(target, scope)
        if isinstance(thing, Defined):
            last = thing.bindings[-1].value
            if thing.kind is Kind.FUNCTION:
                return (thing.scope.path, last), None
            if thing.kind is Kind.VALUE and depth < DEPTH:
                return self.target(last, thing.scope, depth + 1)
        return None, None


def wrong_for_agent(name: str) -> bool:
    """Return whether a name has another suffix than that of an agent, to which an integration would add its own."""
    return has_suffix(name) and with_suffix(name, AGENT) != name
