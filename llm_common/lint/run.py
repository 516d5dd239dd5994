"""The whole of it: files in, findings out."""

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llm_common.lint.checker import check
from llm_common.lint.config import Config
from llm_common.lint.facts import Facts
from llm_common.lint.files import File
from llm_common.lint.resolve import Resolver
from llm_common.lint.rules import RULES
from llm_common.lint.source import Ignore, Misunderstood, ReadError, comments, parse, too_deep, widen
from llm_common.lint.text import Text
from llm_common.lint.together import findings_of
from llm_common.reporting.findings import Finding, Place, finding

ITSELF = "LC9"
"""The group of rules about the linter and its comments, which comments don't silence."""


@dataclass(slots=True)
class Checked:
    """What is kept of a file once its syntax tree is gone."""

    file: File
    codes: frozenset[str]
    facts: Facts = field(default_factory=Facts)
    ignores: list[Ignore] = field(default_factory=list)
    misunderstood: list[Misunderstood] = field(default_factory=list)


def lint(files: Iterable[File], config: Config) -> list[Finding]:
    """Return the findings in ``files``, sorted. Files are read as they are taken from the iterable."""
    resolver = Resolver()
    with without_garbage_collection():
        checked = [check_file(file, config, resolver) for file in files]
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding_ in findings_of(one.facts for one in checked):
        found[finding_.path].append(finding_)
    kept: list[Finding] = []
    for one in checked:
        kept += heard([each for each in found[one.file.shown] if each.code in one.codes], one.ignores)
        kept += about_comments(one)
    return sorted(set(kept))


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Don't look for garbage meanwhile: syntax trees have no cycles, and looking at all their nodes takes a third."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_file(file: File, config: Config, resolver: Resolver) -> Checked:
    """Return what one file shows; what can't be read or parsed is a finding as well."""
    checked = Checked(file, config.codes_for(file.path))
    try:
        text = file.read()
        tree = parse(text)
        try:
            lines = text.split("\n")
            checked.facts = check(
                tree, Text(file.path, file.shown, lines), resolver, narrow_excepts=config.narrow_excepts
            )
        except (RecursionError, MemoryError):
            raise too_deep() from None
        if "LC104" not in checked.codes:
            checked.facts.uses.clear()  # tests may use the names of what they test
        checked.ignores, checked.misunderstood = comments(text)
        widen(checked.ignores, tree, lines)
    except ReadError as problem:
        place = Place(file.shown, problem.line, problem.column, problem.line, problem.column)
        checked.facts.findings.append(finding(place, problem.code, str(problem), problem.fix))
    return checked


def heard(found: list[Finding], ignores: list[Ignore]) -> list[Finding]:
    """Return the findings of a file that no comment silences, and take note of the comments that were needed.

    A comment is for its own line. Where it would silence nothing there, or stands in the first line of a statement, it
    is for all lines of that, or of its header.
    """
    elsewhere = [one for one in found if not silenced(one, [ignore for ignore in ignores if ignore.line == one.line])]
    wider = [(ignore, set[str]() if ignore.line == ignore.first else set(ignore.used)) for ignore in ignores]
    return [
        one
        for one in elsewhere
        if not silenced(
            one, [ignore for ignore, used in wider if ignore.first <= one.line <= ignore.last and one.code not in used]
        )
    ]


def silenced(found: Finding, ignores: list[Ignore]) -> bool:
    """Return whether one of these comments is for ``found``, and take note that it was needed."""
    silences = [ignore for ignore in ignores if ignore.silences(found.code) and not found.code.startswith(ITSELF)]
    for ignore in silences:
        ignore.used.add(found.code)
    return bool(silences)


def about_comments(checked: Checked) -> list[Finding]:
    """Return what is to say about the comments in a file: those without use, those that can't be understood."""
    found = []
    for ignore in checked.ignores:
        if ignore.codes:
            useless = sorted((ignore.codes & checked.codes) - ignore.used)
        else:
            # What isn't selected might have been meant.
            all_on = {code for code in RULES if not code.startswith(ITSELF)} <= checked.codes
            useless = [""] if all_on and not ignore.used else []
        if useless and "LC903" not in ignore.codes:
            what = f" of {', '.join(useless)}" if useless[0] else ""
            fix = "remove the comment" if not ignore.used else "remove the code from the comment"
            place = Place(checked.file.shown, ignore.line, ignore.column, ignore.line, ignore.end_column)
            found.append(finding(place, "LC903", f"there is nothing{what} to ignore in this line", fix))
    for comment in checked.misunderstood:
        place = Place(checked.file.shown, comment.line, comment.column, comment.line, comment.end_column)
        found.append(finding(place, "LC904", comment.message, comment.fix))
    return [one for one in found if one.code in checked.codes]
