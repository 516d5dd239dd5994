"""What one file contributes to what only all files together show. Nothing here keeps a syntax tree."""

from dataclasses import dataclass, field

from llm_common.lint.known import Role
from llm_common.lint.routing import ANYWHERE, Covered, Route, Router
from llm_common.reporting.findings import Finding, Place

Key = tuple[str, int]
"""A function: its file, absolute, and the line of its ``def``."""


Tracked = tuple[str, str, str]
"""What is tracked: its file, the function, and by what."""


@dataclass(frozen=True, slots=True)
class Named:
    """A literal name, where it stands."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class Use:
    """A name that something is tracked as."""

    name: str
    place: Place
    thing: Tracked
    words: str
    overrides: tuple[Tracked, ...] = ()
    """Of a method, what would be it in the classes that its own inherits from, the nearest first."""


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """What is known about a function."""

    name: str
    place: Place
    tracked: bool
    """Whether a decorator, or a block in it, tracks it."""
    tracks_others: bool
    """Whether something is tracked inside of it, so that as a decorator it tracks what it decorates."""
    names: tuple[Named, ...]
    """The names that it is tracked as, as a whole."""
    decorators: tuple[Key, ...]
    """The project's own decorators above it."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A function that a framework is given; of a lambda, ``key`` is ``None``."""

    role: Role
    key: Key | None
    place: Place
    route: Route = ANYWHERE
    """Of a handler of aiogram: with which observer of which router."""


@dataclass(frozen=True, slots=True)
class Given:
    """A name that an integration is given for a function, with what that may be."""

    key: Key | None
    named: Named
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """A tracked piece of code that asks a model or runs an agent, under a name without a suffix."""

    role: Role
    named: Named
    key: Key | None
    """The function that is tracked as a whole by it."""


@dataclass(slots=True)
class Facts:
    """All of it."""

    findings: list[Finding] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    functions: dict[Key, FunctionFacts] = field(default_factory=dict)
    registrations: list[Registration] = field(default_factory=list)
    asking: list[Asking] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    covered: list[Covered] = field(default_factory=list)
    included: list[tuple[str, Router, Router]] = field(default_factory=list)
    """The path of the file, as reports have it, and a router of aiogram, with one that it includes there."""
