"""Every case in ``cases/``: code, with a comment in each line that has findings.

A case begins with its title after ``===``. What stands before the first one is put before every file of every case. A
line of ``---`` begins a file; without one, a case is the file ``code.py``. ``# expect: LC101 LC103`` says which
findings a line has; below ``--- expect`` they are listed with their place.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_common.lint.config import Config
from llm_common.lint.files import find
from llm_common.lint.rules import RULES
from llm_common.lint.run import lint

EXPECT = re.compile(r"\s*# expect: ((?:LC\d{3} ?)+)$")

Expected = Counter[tuple[str, int, str]]


@dataclass(frozen=True)
class Case:
    """A few files, and what is expected of them."""

    group: str
    title: str
    files: dict[str, str]
    expected: Expected


def read_case(group: str, preamble: str, text: str) -> Case:
    title, _, body = text.partition("\n")
    files: dict[str, str] = {}
    expected: Expected = Counter()
    parts = re.split(r"^--- (.+)\n", body, flags=re.MULTILINE)
    named = list(zip(parts[1::2], parts[2::2], strict=True)) or [("code.py", body)]
    for name, content in named:
        if name == "expect":
            for place, line, code in re.findall(r"^(.+):(\d+) (LC\d{3})$", content, re.MULTILINE):
                expected[place, int(line), code] += 1
            continue
        lines = (preamble + content).splitlines()
        for number, line in enumerate(lines, 1):
            if match := EXPECT.search(line):
                for code in match[1].split():
                    expected[name, number, code] += 1
                lines[number - 1] = line[: match.start()]
        files[name] = "\n".join(lines) + "\n"
    return Case(group, title.strip(), files, expected)


def cases() -> list[Case]:
    found = []
    for path in sorted((Path(__file__).parent / "cases").glob("*.txt")):
        preamble, *texts = re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += [read_case(path.stem, preamble.strip() + "\n" if preamble.strip() else "", text) for text in texts]
    return found


CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.title}")
def test_a_case_has_the_findings_that_it_expects_and_no_others(case: Case, tmp_path: Path) -> None:
    for name, content in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    findings = lint(find(["."], lambda path: False), Config())
    assert Counter((one.path, one.line, one.code) for one in findings) == case.expected, [
        f"{one.path}:{one.line} {one.code} {one.text}" for one in findings
    ]


def test_there_are_cases_with_and_without_findings_for_every_rule() -> None:
    expected = {code for case in CASES for _, _, code in case.expected}
    assert expected | {"LC902"} == set(RULES)  # what can't be decoded can't stand in a text file
    assert sum(not case.expected for case in CASES) >= 60
    assert sum(bool(case.expected) for case in CASES) >= 60
    titles = [(case.group, case.title) for case in CASES]
    assert len(titles) == len(set(titles))
