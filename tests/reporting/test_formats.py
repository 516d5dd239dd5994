"""The three formats of a report."""

import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.lint.rules import RULES
from llm_common.reporting.findings import Finding, Place, finding
from llm_common.reporting.formats import as_github, as_json, as_text, explained

ONE = finding(Place("shop/menu.py", 7, 11, 8, 2), "LC101", "the name 'Menu' isn't in snake_case", "write 'menu'")

any_finding = st.builds(
    Finding,
    path=st.text(min_size=1),
    line=st.integers(1, 9999),
    column=st.integers(1, 999),
    code=st.sampled_from(sorted(RULES)),
    message=st.text(),
    fix=st.text(),
    end_line=st.integers(1, 9999),
    end_column=st.integers(1, 999),
)


def test_for_people_there_is_a_line_for_each_finding_and_one_for_all() -> None:
    assert as_text([ONE], 3) == (
        "shop/menu.py:7:11: LC101 the name 'Menu' isn't in snake_case; write 'menu'\n3 files checked, 1 finding\n"
    )


@pytest.mark.parametrize(
    ("findings", "files", "last"),
    [
        ([], 0, "0 files checked, no findings"),
        ([], 1, "1 file checked, no findings"),
        ([ONE, ONE], 1200, "1,200 files checked, 2 findings"),
    ],
)
def test_the_last_line_counts(findings: list[Finding], files: int, last: str) -> None:
    assert as_text(findings, files).splitlines()[-1] == last


def test_a_terminal_is_given_no_orders() -> None:
    strange = finding(Place("a\x1b[31m\n.py"), "LC101", "\r\x07", "…")
    assert as_text([strange], 1).splitlines()[0] == "a\\x1b[31m\\n.py:1:1: LC101 \\r\\x07; …"


def with_excerpt(excerpt: str, offset: int) -> Finding:
    return replace(ONE, subject="panel 'Rate'", excerpt=excerpt, offset=offset, warning=True)


@pytest.mark.parametrize(
    ("excerpt", "offset", "shown"),
    [
        ("sum(nam)", 4, ["    sum(nam)", "        ^"]),
        ("sum(\n  nam\n)", 7, ["      nam", "      ^"]),
        ("\x1b nam", 2, ["    \\x1b nam", "         ^"]),
        ("a" * 100 + "nam" + "b" * 100, 100, [f"    …{'a' * 80}nam{'b' * 77}…", f"    {' ' * 81}^"]),
    ],
)
def test_an_excerpt_is_shown_with_a_caret_below_what_is_meant(excerpt: str, offset: int, shown: list[str]) -> None:
    first, *below, last = as_text([with_excerpt(excerpt, offset)], 1).splitlines()
    assert first == "shop/menu.py:7:11: LC101 warning: panel 'Rate': the name 'Menu' isn't in snake_case; write 'menu'"
    assert below == shown
    assert last == "1 file checked, 1 finding, 1 of them a warning"


def test_warnings_are_counted() -> None:
    assert as_text([with_excerpt("", 0)] * 2, 1).endswith("1 file checked, 2 findings, 2 of them warnings\n")


def test_programs_are_told_the_same() -> None:
    (read,) = json.loads(as_json([with_excerpt("sum(nam)", 4)], 1))
    assert (read["severity"], read["subject"], read["excerpt"], read["offset"]) == (
        "warning",
        "panel 'Rate'",
        "sum(nam)",
        4,
    )
    assert as_github([with_excerpt("sum(nam)", 4)], 1).startswith("::warning file=shop/menu.py,line=7,")


def test_json_has_an_object_for_each_finding() -> None:
    assert json.loads(as_json([ONE], 3)) == [
        {
            "path": "shop/menu.py",
            "line": 7,
            "column": 11,
            "end": {"line": 8, "column": 2},
            "code": "LC101",
            "severity": "error",
            "message": "the name 'Menu' isn't in snake_case",
            "fix": "write 'menu'",
        }
    ]
    assert json.loads(as_json([], 3)) == []


def test_github_is_given_a_command_for_each_finding() -> None:
    assert as_github([ONE], 3) == (
        "::error file=shop/menu.py,line=7,col=11,title=LC101::the name 'Menu' isn't in snake_case; write 'menu'\n"
    )
    assert as_github([], 3) == ""


def test_github_is_given_what_its_commands_have_a_meaning_for_escaped() -> None:
    strange = finding(Place("a,b:c%d\r\n.py"), "LC101", "100 %, of a:b\r\n::error", "none")
    assert as_github([strange], 1) == (
        "::error file=a%2Cb%3Ac%25d%0D%0A.py,line=1,col=1,title=LC101::100 %25, of a:b%0D%0A::error; none\n"
    )


@given(st.lists(any_finding, max_size=3))
def test_every_format_can_be_read_back(findings: list[Finding]) -> None:
    read = json.loads(as_json(findings, 1))
    assert [(one["path"], one["line"], one["column"], one["message"]) for one in read] == [
        (one.path, one.line, one.column, one.message) for one in findings
    ]
    assert len(as_text(findings, 1).splitlines()) == len(findings) + 1
    commands = as_github(findings, 1).split("\n")
    assert commands.pop() == ""
    assert len(commands) == len(findings)
    for command, one in zip(commands, findings, strict=True):
        match = re.fullmatch(r"::error file=([^,:]*),line=(\d+),col=(\d+),title=(LC\d+)::(.*)", command, re.DOTALL)
        assert match
        assert unquote(match[1], errors="surrogatepass") == unquote(unquote(one.path.replace("%", "%25")))
        assert (int(match[2]), int(match[3]), match[4]) == (one.line, one.column, one.code)


@pytest.mark.parametrize("code", RULES)
def test_an_explanation_has_the_code_the_reason_and_both_examples(code: str) -> None:
    text = explained(RULES[code])
    assert text.startswith(f"{code}: ")
    assert text.index("Wrong:") < text.index("Right:")
    assert RULES[code].why in text
