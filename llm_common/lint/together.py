"""What only all files together show: one name for two things, handlers that nothing tracks, suffixes by role."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, SUFFIXES, TASK, with_suffix
from llm_common.lint.facts import Asking, Facts, FunctionFacts, Given, Key, Named, Registration, Tracked, Use
from llm_common.lint.known import AIOGRAM, JOBS, TELEGRAM, Role
from llm_common.lint.names import problem_of, shown
from llm_common.lint.routing import Covered, Router, Routing
from llm_common.reporting.findings import Finding, finding

SUFFIX_CODES = {HANDLER: "LC201", TASK: "LC202", LLM_CALL: "LC203", AGENT: "LC204"}
UNTRACKED_CODES = {AIOGRAM: "LC401", TELEGRAM: "LC402"}
ONE_LINE = {
    AIOGRAM: "decorate it, or call ActionTrackingMiddleware().setup(dispatcher) once for all",
    TELEGRAM: "decorate it, or call track_handlers(application) once for all",
}


def findings_of(all_facts: Iterable[Facts]) -> Iterator[Finding]:
    """Yield the findings of each file, and those of all files together."""
    uses: list[Use] = []
    functions: dict[Key, FunctionFacts] = {}
    registrations: list[Registration] = []
    asking: list[Asking] = []
    given: list[Given] = []
    covered: list[Covered] = []
    included: list[tuple[str, Router, Router]] = []
    for facts in all_facts:
        yield from facts.findings
        uses += facts.uses
        functions |= facts.functions
        registrations += facts.registrations
        asking += facts.asking
        given += facts.given
        covered += facts.covered
        included += facts.included
    yield from shared(uses)
    roles: dict[Key, list[Role]] = defaultdict(list)
    for registered in registrations:
        if registered.key:
            roles[registered.key].append(registered.role)
    for key, found in roles.items():
        if key in functions:
            for named in functions[key].names:
                yield from lacking(named, found)
    for ask in asking:
        if ask.key not in roles:
            yield from lacking(ask.named, [ask.role])
    for one in given:
        yield from lacking(one.named, roles.get(one.key, one.roles) if one.key else one.roles)
    yield from untracked(registrations, functions, Routing(covered, included))


def shared(uses: list[Use]) -> Iterator[Finding]:
    """Report names that two things have, at the second of them; what overrides another is the same thing."""
    first: dict[str, Use] = {}
    things = {(use.name, use.thing) for use in uses}
    for use in sorted(uses, key=lambda one: (one.place.path, one.place.line, one.place.column)):
        before = first.setdefault(use.name, use)
        if outermost(before, things) != outermost(use, things):
            where = f"{before.words} at {before.place.path}:{before.place.line}"
            message = f"the name {shown(use.name)} belongs to {where} already"
            yield finding(use.place, "LC104", message, "give each a name of its own")


def outermost(use: Use, things: set[tuple[str, Tracked]]) -> Tracked:
    """Return what is tracked, or of a method the one that it overrides, if that has the same name."""
    return next((one for one in reversed(use.overrides) if (use.name, one) in things), use.thing)


def lacking(named: Named, roles: Sequence[Role]) -> Iterator[Finding]:
    """Report a name that doesn't end as its role asks for."""
    if problem_of(named.name) is None and all(with_suffix(named.name, role.suffix) != named.name for role in roles):
        role = roles[0]
        base = next((named.name.removesuffix(one) for one in SUFFIXES if named.name.endswith(one)), named.name)
        message = f"the name {shown(named.name)} of {role.words} doesn't end with {role.suffix}"
        yield finding(named.place, SUFFIX_CODES[role.suffix], message, f"write {shown(with_suffix(base, role.suffix))}")


def untracked(
    registrations: list[Registration], functions: Mapping[Key, FunctionFacts], routing: Routing
) -> Iterator[Finding]:
    """Report handlers that nothing tracks, each once, where the function stands."""
    seen: set[tuple[str, Key]] = set()
    for one in registrations:
        framework = one.role.framework
        if framework == JOBS or routing.covers(framework, one.place.path, one.route):
            continue
        if one.key is None:
            message = f"nothing tracks this lambda, {one.role.words}"
            yield finding(one.place, UNTRACKED_CODES[framework], message, ONE_LINE[framework])
            continue
        function = functions.get(one.key)
        if function is None or (framework, one.key) in seen:
            continue
        seen.add((framework, one.key))
        by_decorator = any(key in functions and functions[key].tracks_others for key in function.decorators)
        if not function.tracked and not by_decorator:
            elsewhere = one.place.path != function.place.path or one.place.line != function.place.line
            where = f" (registered at {one.place.path}:{one.place.line})" if elsewhere else ""
            message = f"nothing tracks {function.name}, {one.role.words}{where}"
            yield finding(function.place, UNTRACKED_CODES[framework], message, ONE_LINE[framework])
