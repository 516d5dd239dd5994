"""What a name in the code stands for: through imports and aliases, also of other files of the project.

Other files are read as far as needed, whether they are linted or not, and never run.
"""

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from llm_common.lint.known import EXPORTED, OURS
from llm_common.lint.scopes import Binding, Kind, Scope, collect
from llm_common.lint.source import ReadError, parse, read

DEPTH = 20
"""How many steps an alias of an alias is followed; after that it is given up as a circle."""

KNOWN_ROOTS = frozenset(
    {"llm_common", "aiogram", "telegram", "celery", "apscheduler", "agents", *sys.stdlib_module_names}
)
"""Packages whose files are never looked for in the project."""

ROOT_MARKS = ("pyproject.toml", ".git")
"""What the outermost folder of a project has."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Something that isn't of the project: known by its dotted name alone."""

    name: str


@dataclass(frozen=True, slots=True)
class Defined:
    """A name that a file of the project binds."""

    name: str
    scope: Scope
    bindings: list[Binding]

    @property
    def kind(self) -> Kind:
        """How it is bound, where it is bound in one way."""
        kinds = {binding.kind for binding in self.bindings}
        return kinds.pop() if len(kinds) == 1 else Kind.OTHER


Thing = Outside | Defined | Scope | None
"""What a name stands for; a :class:`Scope` is a module. ``None`` where that can't be told."""


class Resolver:
    """Tells what names stand for, and keeps what it has read of the project's files."""

    def __init__(self) -> None:
        self._surfaces: dict[str, Scope | None] = {}
        self._roots: dict[str, tuple[str, ...]] = {}
        self._lineages: dict[Scope, list[Scope]] = {}
        """For classes, themselves and those of the project that they inherit from."""
        self._inheriting = False
        """Whether it is looked for what a class inherits from, which isn't done by what is inherited itself."""
        self._is_file = cache(os.path.isfile)
        self._is_folder = cache(os.path.isdir)

    def add(self, scope: Scope) -> None:
        """Take the outermost scope of a file that was read already."""
        self._surfaces[scope.path] = scope

    def dotted(self, expression: ast.AST, scope: Scope) -> str:
        """Return the dotted name of something outside of the project; empty where ``expression`` is none."""
        thing = self.find(expression, scope)
        return thing.name if isinstance(thing, Outside) else ""

    def ours(self, expression: ast.AST, scope: Scope) -> str:
        """Return :data:`TRACKING` or :data:`DECORATOR` where ``expression`` is one of them, else an empty text."""
        return OURS.get(self.dotted(expression, scope), "")

    def find(self, expression: ast.AST, scope: Scope, depth: int = 0) -> Thing:
        """Return what a name, or an attribute of one, stands for."""
        if depth > DEPTH:
            return None
        if isinstance(expression, ast.Name):
            return self._named(expression.id, scope, depth)
        if isinstance(expression, ast.Attribute):
            if isinstance(expression.value, ast.Name) and expression.value.id in ("self", "cls"):
                owner = scope.owner
                return self._bound(expression.attr, owner, depth) if owner else None
            return self._attribute(self.find(expression.value, scope, depth + 1), expression.attr, depth)
        return None

    def _named(self, name: str, scope: Scope, depth: int) -> Thing:
        around = scope.lookup(name)
        if around:
            return self._bound(name, around[0], depth)
        return self._starred(name, scope.outermost, depth) or Outside(f"builtins.{name}")

    def _starred(self, name: str, module: Scope, depth: int) -> Thing:
        """Return what ``name`` stands for where a module may have it from one of which it imports everything."""
        for star in module.stars:
            thing = self._follow((*star, name), module, depth + 1)
            # Of what isn't read, everything could come; only of some of it is it known what does.
            if isinstance(thing, Defined) or (isinstance(thing, Outside) and thing.name in EXPORTED):
                return thing
        return None

    def _bound(self, name: str, scope: Scope, depth: int) -> Thing:
        bindings = scope.names.get(name)
        if not bindings:
            return self._starred(name, scope, depth) if scope.kind == "module" else self._inherited(name, scope, depth)
        for binding in bindings:
            # What is imported comes first: what else has its name is a substitute where the import failed.
            if binding.kind is Kind.IMPORT:
                return self._follow(binding.value, scope, depth + 1)
        if len(bindings) == 1 and bindings[0].kind is Kind.VALUE:
            alias = bindings[0].value
            if isinstance(alias, ast.Name | ast.Attribute):
                # A class that binds a name to itself, as in ``name = name``, means the one outside of it.
                same = isinstance(alias, ast.Name) and alias.id == name
                return self.find(alias, (scope.parent or scope) if same else scope, depth + 1)
        return Defined(name, scope, bindings)

    def _inherited(self, name: str, owner: Scope, depth: int) -> Thing:
        if self._inheriting:
            return None
        if owner not in self._lineages:
            self._inheriting = True
            try:
                self._lineages[owner] = [one for one in self.lineage(owner) if isinstance(one, Scope)]
            finally:
                self._inheriting = False
        nearest = next((one for one in self._lineages[owner] if name in one.names), None)
        return self._bound(name, nearest, depth + 1) if nearest else None

    def _attribute(self, thing: Thing, name: str, depth: int) -> Thing:
        if isinstance(thing, Outside):
            return Outside(f"{thing.name}.{name}")
        if isinstance(thing, Scope):
            found = self._bound(name, thing, depth + 1)
            if found is None and os.path.basename(thing.path) == "__init__.py":
                return self._surface(self._module(os.path.join(os.path.dirname(thing.path), name)))
            return found
        if isinstance(thing, Defined) and thing.kind is Kind.CLASS:
            return self._bound(name, thing.bindings[-1].value, depth + 1)
        return None

    def _follow(self, parts: tuple[str, ...], scope: Scope, depth: int) -> Thing:
        """Return what an import of ``parts`` yields, in the file of ``scope``."""
        if depth > DEPTH:
            return None
        if os.sep in parts[0] or os.sep == parts[0]:
            return self._descend(parts[0], parts[1:], parts, depth)
        if parts[0] not in KNOWN_ROOTS:
            for folder in self._search_path(os.path.dirname(scope.path)):
                if self._module(os.path.join(folder, parts[0])):
                    return self._descend(folder, parts, parts, depth)
        return Outside(".".join(parts))

    def _descend(self, folder: str, names: tuple[str, ...], whole: tuple[str, ...], depth: int) -> Thing:
        """Return what ``names`` lead to from ``folder``: through folders, then modules, then what these bind."""
        here: Thing = self._surface(os.path.join(folder, "__init__.py"))
        for number, name in enumerate(names):
            if folder:
                bound = here.names.get(name, ()) if isinstance(here, Scope) else ()
                # A package that imports its own module has it under that name as well.
                own = any(
                    binding.kind is Kind.IMPORT and binding.value == whole[: len(whole) - len(names) + number + 1]
                    for binding in bound
                )
                module = self._module(os.path.join(folder, name))
                if module and (own or not bound):
                    folder = os.path.join(folder, name) if self._is_folder(os.path.join(folder, name)) else ""
                    here = self._surface(module)
                    continue
                folder = ""
                if own:
                    return None
            here = self._attribute(here, name, depth)
        return here

    def _module(self, path: str) -> str:
        """Return the file of the module or package at ``path``; for a folder without one, the folder."""
        for file in (os.path.join(path, "__init__.py"), f"{path}.py"):
            if self._is_file(file):
                return file
        return path if self._is_folder(path) else ""

    def _search_path(self, folder: str) -> tuple[str, ...]:
        """Return the folders in which a file of ``folder`` finds modules: those above it that are no packages."""
        if folder not in self._roots:
            found = []
            for current in (folder, *map(str, PurePath(folder).parents)):
                if not self._is_file(os.path.join(current, "__init__.py")):
                    found.append(current)
                if any(os.path.exists(os.path.join(current, mark)) for mark in ROOT_MARKS):
                    break
            self._roots[folder] = tuple(found)
        return self._roots[folder]

    def _surface(self, path: str) -> Scope | None:
        """Return the outermost scope of a file, or ``None`` where it can't be read."""
        if path not in self._surfaces:
            self._surfaces[path] = None
            if self._is_file(path):
                try:
                    text = read(path)
                    tree = parse(text)
                    self._surfaces[path] = collect(tree, path, surface="global " not in text).scope
                except (ReadError, RecursionError, MemoryError):
                    pass  # where it is linted itself, that is reported
        return self._surfaces[path]

    def classes(self, expression: ast.AST, scope: Scope) -> set[str]:
        """Return the dotted name of a class outside of the project; of one in it, those of what it inherits from."""
        thing = self.find(expression, scope)
        if isinstance(thing, Outside):
            return {thing.name}
        if isinstance(thing, Defined) and thing.kind is Kind.CLASS:
            return {one for one in self.lineage(thing.bindings[-1].value) if isinstance(one, str)}
        return set()

    def lineage(self, owner: Scope) -> Iterator[Scope | str]:
        """Yield a class and what it inherits from, the nearest first: scopes in the project, else dotted names."""
        waiting, seen = [owner], set[int]()
        while waiting:
            one = waiting.pop(0)
            if id(one) in seen:
                continue
            seen.add(id(one))
            yield one
            for base in one.bases:
                generic = base.value if isinstance(base, ast.Subscript) else base
                thing = self.find(generic, one.parent or one)
                if isinstance(thing, Outside):
                    yield thing.name
                elif isinstance(thing, Defined) and thing.kind is Kind.CLASS:
                    waiting.append(thing.bindings[-1].value)
