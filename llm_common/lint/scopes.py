"""What one file binds to which names, and where it calls what: collected in one pass over its syntax tree.

What other files may ask of a file is its outermost :class:`Scope`, which keeps little of the tree.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
Block = ast.With | ast.AsyncWith
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.With, ast.AsyncWith)
CLOSED = (*FUNCTIONS, ast.Lambda, ast.ClassDef)
"""What has a scope of its own: its code doesn't run where it stands."""

READABLE = (
    *(ast.Constant, ast.JoinedStr, ast.Name, ast.Attribute, ast.Call, ast.IfExp),
    *(ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Subscript),
)
"""Expressions whose value can be told, or what made it."""

LEAVES = frozenset(
    one
    for base in (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
    for one in (base, *base.__subclasses__(), ast.Constant)
)
"""Nodes without nodes below them and without a name: one after nearly every other node."""


class Kind(Enum):
    """How a name was bound."""

    IMPORT = "import"
    VALUE = "value"
    EACH = "each"
    """Each item in turn of what a loop goes through."""
    FUNCTION = "function"
    CLASS = "class"
    DECLARED = "declared"
    """A parameter."""
    TYPED = "typed"
    """A variable that has a type but no value there."""
    OTHER = "other"


class Binding(NamedTuple):
    """One place that binds a name."""

    kind: Kind
    value: Any = None
    """The parts of the dotted name that is imported, an expression, a line, a :class:`Scope`, an annotation.

    Of a loop it is what it goes through, and at which place in each item the name stands (``None`` for all of it).
    """


class Scope:
    """The names that a module, class or function binds."""

    __slots__ = ("bases", "elsewhere", "kind", "names", "parent", "path", "qualname", "roots", "stars")

    def __init__(self, kind: str, qualname: str, parent: "Scope | None", path: str) -> None:
        self.kind = kind
        """``module``, ``class`` or ``function``."""
        self.qualname = qualname
        self.parent = parent
        self.path = path
        """The file, absolute; of standard input, what it is called."""
        self.names: dict[str, list[Binding]] = {}
        self.bases: list[ast.expr] = []
        """Of a class, the expressions for those that it inherits from."""
        self.elsewhere: dict[str, Scope] = {}
        """The names that a ``global`` or ``nonlocal`` statement gives to another scope."""
        self.stars: list[tuple[str, ...]] = []
        """The modules from which everything is imported."""
        self.roots: set[str] = parent.roots if parent else set()
        """The first parts of all that the file imports, anywhere in it."""

    def bind(self, name: str, kind: Kind, value: Any = None) -> None:
        """Take note that ``name`` is bound."""
        scope = self.elsewhere.get(name, self)
        scope.names.setdefault(name, []).append(Binding(kind, value))

    def bind_value(self, name: str, value: ast.expr) -> None:
        """Take note that ``name`` is assigned ``value``, which is kept where something can be told of it."""
        if isinstance(value, READABLE):
            self.bind(name, Kind.VALUE, value)
        else:
            self.bind(name, Kind.OTHER)

    def inner(self, kind: str, name: str) -> "Scope":
        """Return a scope inside of this one."""
        prefix = "" if self.kind == "module" else f"{self.qualname}."
        return Scope(kind, prefix + name, self, self.path)

    def lookup(self, name: str) -> "tuple[Scope, list[Binding]] | None":
        """Return the bindings of ``name`` as code in this scope sees them, and the scope that has them."""
        scope: Scope | None = self
        while scope:
            if name in scope.names and (scope.kind != "class" or scope is self):
                return scope, scope.names[name]
            scope = scope.parent
        return None

    @property
    def outermost(self) -> "Scope":
        """The scope of the module."""
        scope = self
        while scope.parent:
            scope = scope.parent
        return scope

    @property
    def owner(self) -> "Scope | None":
        """The class whose method this is, or a function in one."""
        scope: Scope | None = self
        while scope and scope.kind != "class":
            scope = scope.parent
        return scope


@dataclass(slots=True)
class Collected:
    """What one file holds that rules look at, each with the scope around it, in the order of the file."""

    scope: Scope
    calls: list[tuple[ast.Call, Scope]] = field(default_factory=list)
    statements: list[tuple[ast.Expr, Scope]] = field(default_factory=list)
    blocks: list[tuple[Block, Scope]] = field(default_factory=list)
    functions: list[tuple[Function, Scope, Scope]] = field(default_factory=list)
    """Each function with the scope that it stands in and its own."""
    classes: list[tuple[ast.ClassDef, Scope, Scope]] = field(default_factory=list)


def collect(tree: ast.Module, path: str, *, surface: bool = False) -> Collected:
    """Return what a file holds. Where its ``surface`` is enough, functions aren't looked into."""
    found = Collected(Scope("module", "<module>", None, path))
    stack: list[tuple[ast.AST, Scope]] = [(tree, found.scope)]
    while stack:
        node, scope = stack.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                scope.bind(node.id, Kind.OTHER)
            continue
        visit = VISIT.get(type(node))
        below = list(visit(node, scope, found)) if visit else children_of(node, scope)
        below.reverse()
        stack += [one for one in below if one[1].kind != "function"] if surface else below
    return found


Children = Iterable[tuple[ast.AST, Scope]]


def parts_of(node: ast.AST) -> list[ast.AST]:
    """Return the nodes right below ``node``, as :func:`ast.iter_child_nodes` does, but faster and without leaves."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST) and type(one) not in LEAVES]
        elif isinstance(value, ast.AST) and type(value) not in LEAVES:
            found.append(value)
    return found


def children_of(node: ast.AST, scope: Scope) -> list[tuple[ast.AST, Scope]]:
    """Return the parts of ``node``, which are in the same scope."""
    return [(one, scope) for one in parts_of(node)]


def visit_call(node: ast.Call, scope: Scope, found: Collected) -> Children:
    """Keep a call."""
    found.calls.append((node, scope))
    return children_of(node, scope)


def visit_statement(node: ast.Expr, scope: Scope, found: Collected) -> Children:
    """Keep an expression that is a statement."""
    found.statements.append((node, scope))
    return [(node.value, scope)]


def visit_block(node: Block, scope: Scope, found: Collected) -> Children:
    """Keep a block of ``with``."""
    found.blocks.append((node, scope))
    return children_of(node, scope)


def bound_at(target: ast.expr, scope: Scope) -> tuple[Scope, str] | None:
    """Return the scope in which a target is bound, and its name there, if it is a name or an attribute of ``self``."""
    if isinstance(target, ast.Name):
        return scope, target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return (scope.owner, target.attr) if scope.owner else None
    return None


def bind_from(scope: Scope, owner: Scope, name: str, value: ast.expr) -> None:
    """Take note that ``name`` of ``owner`` is assigned what ``value`` is in ``scope``."""
    known = scope.names.get(value.id) if owner is not scope and isinstance(value, ast.Name) else None
    if known:  # a parameter or a variable of the method, which the class doesn't see
        for one in known:
            owner.bind(name, one.kind, one.value)
    else:
        owner.bind_value(name, value)


def visit_assign(node: ast.Assign, scope: Scope, found: Collected) -> Children:
    """Bind what is assigned, also to the attributes of ``self``."""
    yield node.value, scope
    for target in node.targets:
        where = bound_at(target, scope)
        if where:
            bind_from(scope, *where, node.value)
        else:
            yield target, scope


def visit_annotated(node: ast.AnnAssign, scope: Scope, found: Collected) -> Children:
    """Bind what is assigned or declared with a type."""
    where = bound_at(node.target, scope)
    if where and node.value:
        bind_from(scope, *where, node.value)
    elif where:
        where[0].bind(where[1], Kind.TYPED, node.annotation)
    return [(node.value, scope)] if node.value else []


def visit_walrus(node: ast.NamedExpr, scope: Scope, found: Collected) -> Children:
    """Bind what ``:=`` assigns."""
    scope.bind_value(node.target.id, node.value)
    return [(node.value, scope)]


def visit_loop(node: Any, scope: Scope, found: Collected) -> Children:
    """Bind what a loop, or one in a comprehension, goes through."""
    targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
    for place, target in enumerate(targets):
        if isinstance(target, ast.Name):
            scope.bind(target.id, Kind.EACH, (node.iter, place if isinstance(node.target, ast.Tuple) else None))
        else:
            yield target, scope
    yield from ((one, scope) for one in parts_of(node) if one is not node.target)


def visit_import(node: ast.Import, scope: Scope, found: Collected) -> Children:
    """Bind what ``import`` binds."""
    for alias in node.names:
        parts = tuple(alias.name.split("."))
        scope.roots.add(parts[0])
        scope.bind(alias.asname or parts[0], Kind.IMPORT, parts if alias.asname else parts[:1])
    return ()


def visit_import_from(node: ast.ImportFrom, scope: Scope, found: Collected) -> Children:
    """Bind what ``from … import`` binds. What is relative begins with the path of a folder."""
    parts = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        parents = PurePath(scope.path).parents
        parts = (str(parents[min(node.level, len(parents)) - 1]), *parts)
    else:
        scope.roots.add(parts[0])
    for alias in node.names:
        if alias.name == "*":
            scope.stars.append(parts)
        else:
            scope.bind(alias.asname or alias.name, Kind.IMPORT, (*parts, alias.name))
    return ()


def arguments_of(node: Function | ast.Lambda, inner: Scope) -> Iterator[ast.expr]:
    """Bind the parameters inside, and yield their defaults, which belong outside."""
    arguments = node.args
    for one in (*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg):
        if one:
            inner.bind(one.arg, Kind.DECLARED, one.annotation)
    yield from arguments.defaults
    yield from (one for one in arguments.kw_defaults if one)


def visit_function(node: Function, scope: Scope, found: Collected) -> Children:
    """Keep a function, bind its name and its parameters."""
    scope.bind(node.name, Kind.FUNCTION, node.lineno)
    inner = scope.inner("function", node.name)
    found.functions.append((node, scope, inner))
    outside = [*node.decorator_list, *arguments_of(node, inner)]
    return [*((one, scope) for one in outside), *((one, inner) for one in node.body)]


def visit_lambda(node: ast.Lambda, scope: Scope, found: Collected) -> Children:
    """Bind the parameters of a lambda."""
    inner = scope.inner("function", "<lambda>")
    return [*((one, scope) for one in arguments_of(node, inner)), (node.body, inner)]


def visit_class(node: ast.ClassDef, scope: Scope, found: Collected) -> Children:
    """Keep a class and bind its name."""
    inner = scope.inner("class", node.name)
    inner.bases = node.bases
    scope.bind(node.name, Kind.CLASS, inner)
    found.classes.append((node, scope, inner))
    outside = [*node.decorator_list, *node.bases, *node.keywords]
    return [*((one, scope) for one in outside), *((one, inner) for one in node.body)]


def visit_global(node: ast.Global, scope: Scope, found: Collected) -> Children:
    """Give names to the module: a constant that a function assigns as well is none."""
    for name in node.names:
        scope.elsewhere[name] = found.scope
        scope.bind(name, Kind.OTHER)
    return ()


def visit_nonlocal(node: ast.Nonlocal, scope: Scope, found: Collected) -> Children:
    """Give names to the function around."""
    for name in node.names:
        around = scope.parent.lookup(name) if scope.parent else None
        if around:
            scope.elsewhere[name] = around[0]
        scope.bind(name, Kind.OTHER)
    return ()


def visit_named(node: Any, scope: Scope, found: Collected) -> Children:
    """Bind the name that an ``except`` clause or a pattern gives."""
    name = node.rest if isinstance(node, ast.MatchMapping) else node.name
    if name:
        scope.bind(name, Kind.OTHER)
    return children_of(node, scope)


VISIT: dict[type, Any] = {
    ast.Call: visit_call,
    ast.Expr: visit_statement,
    ast.With: visit_block,
    ast.AsyncWith: visit_block,
    ast.Assign: visit_assign,
    ast.AnnAssign: visit_annotated,
    ast.NamedExpr: visit_walrus,
    ast.For: visit_loop,
    ast.AsyncFor: visit_loop,
    ast.comprehension: visit_loop,
    ast.Import: visit_import,
    ast.ImportFrom: visit_import_from,
    ast.FunctionDef: visit_function,
    ast.AsyncFunctionDef: visit_function,
    ast.Lambda: visit_lambda,
    ast.ClassDef: visit_class,
    ast.Global: visit_global,
    ast.Nonlocal: visit_nonlocal,
    ast.ExceptHandler: visit_named,
    ast.MatchAs: visit_named,
    ast.MatchStar: visit_named,
    ast.MatchMapping: visit_named,
}


def within(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a body, in order, without the insides of functions and classes in it."""
    stack = list(reversed(list(body)))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, CLOSED):
            stack += reversed(parts_of(node))
