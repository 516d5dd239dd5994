"""The report, in one of three formats: for people, for programs, for a workflow of GitHub."""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from llm_common.reporting.findings import Finding
from llm_common.reporting.rules import Rule

Report = Callable[[Sequence[Finding], int], str]

WIDTH = 160
"""How much of a long line an excerpt shows, in characters."""


def as_text(findings: Sequence[Finding], files: int) -> str:
    """Return a line for each finding, with its excerpt where it has one, and a line for all of them."""
    lines = [
        f"{printable(one.path)}:{one.line}:{one.column}: {one.code} {'warning: ' * one.warning}{printable(one.text)}"
        f"{pointed_at(one.excerpt, one.offset)}"
        for one in findings
    ]
    checked = f"{files:,} file{'' if files == 1 else 's'} checked"
    count = f"{len(findings):,} finding{'' if len(findings) == 1 else 's'}" if findings else "no findings"
    warnings = sum(one.warning for one in findings)
    doubtful = f", {warnings:,} of them {'a warning' if warnings == 1 else 'warnings'}" if warnings else ""
    return "".join(f"{line}\n" for line in [*lines, f"{checked}, {count}{doubtful}"])


def pointed_at(excerpt: str, offset: int) -> str:
    """Return the line of ``excerpt`` that ``offset`` is in, and a caret below that place, each after a line break."""
    if not excerpt:
        return ""
    start = excerpt.rfind("\n", 0, offset) + 1
    line = excerpt[start:].split("\n", 1)[0]
    first = max(0, offset - start - WIDTH // 2)
    before = ("…" if first else "") + printable(line[first : offset - start])
    after = printable(line[offset - start : first + WIDTH]) + ("…" if len(line) > first + WIDTH else "")
    return f"\n    {before}{after}\n    {' ' * len(before)}^"


def as_json(findings: Sequence[Finding], files: int) -> str:
    """Return a JSON list of objects."""
    listed = [
        {
            "path": one.path,
            "line": one.line,
            "column": one.column,
            "end": {"line": one.end_line, "column": one.end_column},
            "code": one.code,
            "severity": severity(one),
            "message": one.message,
            "fix": one.fix,
            **({"subject": one.subject} if one.subject else {}),
            **({"excerpt": one.excerpt, "offset": one.offset} if one.excerpt else {}),
        }
        for one in findings
    ]
    return json.dumps(listed, indent=2) + "\n"


def as_github(findings: Sequence[Finding], files: int) -> str:
    """Return a workflow command for each finding, escaped as GitHub's own toolkit does it."""
    return "".join(
        f"::{severity(one)} file={in_property(one.path)},line={one.line},col={one.column},"
        f"title={in_property(one.code)}::{in_data(one.text)}\n"
        for one in findings
    )


def severity(one: Finding) -> str:
    """Return the word of programs for how bad a finding is."""
    return "warning" if one.warning else "error"


FORMATS: Mapping[str, Report] = MappingProxyType({"text": as_text, "json": as_json, "github": as_github})


def explained(rule: Rule) -> str:
    """Return all that there is to say about a rule."""

    def indented(code: str) -> str:
        return "".join(f"    {line}".rstrip() + "\n" for line in code.splitlines())

    examples = f"Wrong:\n\n{indented(rule.wrong)}\nRight:\n\n{indented(rule.right)}"
    return f"{rule.code}: {rule.summary}\n\n{rule.why}\n\n{examples}"


def printable(text: str) -> str:
    """Return ``text`` in one line, with escapes for what a terminal would take as an order."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def in_data(text: str) -> str:
    """Escape the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def in_property(text: str) -> str:
    """Escape a property of a workflow command."""
    return in_data(text).replace(":", "%3A").replace(",", "%2C")
