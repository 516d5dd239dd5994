"""What only all files together show: one name for two things, handlers that nothing tracks, suffixes by role."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, SUFFIXES, TASK, with_suffix
from llm_common.lint.facts import Facts, FunctionFacts, Key, Named, Registration, Use
from llm_common.lint.frameworks import AIOGRAM, JOBS, TELEGRAM, Role
from llm_common.lint.names import problem_of, shown
from llm_common.reporting.findings import Finding, finding

SUFFIX_CODES = {HANDLER: "LC201", TASK: "LC202", LLM_CALL: "LC203", AGENT: "LC204"}
UNTRACKED_CODES = {AIOGRAM: "LC401", TELEGRAM: "LC402"}
ONE_LINE = {
    AIOGRAM: "decorate it, or register ActionTrackingMiddleware once for all",
    TELEGRAM: "decorate it, or call track_handlers(application) once for all",
}


def findings_of(all_facts: Iterable[Facts]) -> Iterator[Finding]:
    """Yield the findings of each file, and those of all files together."""
    uses: list[Use] = []
    functions: dict[Key, FunctionFacts] = {}
    registrations: list[Registration] = []
    asking = []
    covered: set[str] = set()
    for facts in all_facts:
        yield from facts.findings
        uses += facts.uses
        functions |= facts.functions
        registrations += facts.registrations
        asking += facts.asking
        covered |= facts.covered
    yield from shared(uses)
    roles: dict[Key, list[Role]] = defaultdict(list)
    for one in registrations:
        if one.key:
            roles[one.key].append(one.role)
    for key, found in roles.items():
        if key in functions:
            for named in functions[key].names:
                yield from lacking(named, found)
    for ask in asking:
        if ask.key not in roles:
            yield from lacking(ask.named, [ask.role])
    yield from untracked(registrations, functions, covered)


def shared(uses: list[Use]) -> Iterator[Finding]:
    """Report names that two things have, at the second of them."""
    first: dict[str, Use] = {}
    for use in sorted(uses, key=lambda one: (one.place.path, one.place.line, one.place.column)):
        before = first.setdefault(use.name, use)
        if before.thing != use.thing:
            where = f"{before.words} at {before.place.path}:{before.place.line}"
            message = f"the name {shown(use.name)} belongs to {where} already"
            yield finding(use.place, "LC104", message, "give each a name of its own")


def lacking(named: Named, roles: list[Role]) -> Iterator[Finding]:
    """Report a name that doesn't end as its role asks for."""
    if problem_of(named.name) is None and all(with_suffix(named.name, role.suffix) != named.name for role in roles):
        role = roles[0]
        base = next((named.name.removesuffix(one) for one in SUFFIXES if named.name.endswith(one)), named.name)
        message = f"the name {shown(named.name)} of {role.words} doesn't end with {role.suffix}"
        yield finding(named.place, SUFFIX_CODES[role.suffix], message, f"write {shown(with_suffix(base, role.suffix))}")


def untracked(
    registrations: list[Registration], functions: Mapping[Key, FunctionFacts], covered: set[str]
) -> Iterator[Finding]:
    """Report handlers that nothing tracks, each once, where the function stands."""
    seen: set[tuple[str, Key]] = set()
    for one in registrations:
        framework = one.role.framework
        if framework in covered or framework == JOBS:
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
