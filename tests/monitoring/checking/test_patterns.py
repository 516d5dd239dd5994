"""The alternatives of regular expressions, and whether one matches a value."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.monitoring.checking.patterns import alternatives, cheap, literal, matches_any

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [""]),
        ("ok", ["ok"]),
        ("ok|error", ["ok", "error"]),
        ("a(b|c)|d", ["a(b|c)", "d"]),
        ("(a)|(b)", ["(a)", "(b)"]),
        ("(a)(b)", ["(a)(b)"]),
        ("(a|b)", ["a", "b"]),
        ("^((?:a|b)|c)$", ["(?:a|b)", "c"]),
        (r"a\|b|[|]|\\|c\$", [r"a\|b", "[|]", r"\\", r"c\$"]),
        (r"a|b\$", ["a", r"b\$"]),
        ("(?i)a|b", ["(?i)a", "(?i)b"]),
        ("(?P<x>a|b)", ["(?P<x>a|b)"]),
        ("a|", ["a", ""]),
    ],
)
def test_alternatives_stand_outside_of_brackets(pattern: str, expected: list[str]) -> None:
    assert alternatives(pattern) == expected


@given(st.lists(st.text(alphabet="abc", min_size=1), min_size=1), st.text(alphabet="abc"))
def test_a_text_matches_if_it_matches_an_alternative(parts: list[str], text: str) -> None:
    pattern = "|".join(parts)
    assert (re.fullmatch(pattern, text) is not None) == any(one == text for one in alternatives(pattern))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("ok", "ok"), (r"5\.0", "5.0"), (r"\{other\}", "{other}"), ("5.0", None), (r"\d", None), ("a?", None), ("", "")],
)
def test_what_matches_one_text_alone_is_that_text(pattern: str, text: str | None) -> None:
    assert literal(pattern) == text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("o.", True),
        ("e.+r", True),
        ("x.+", False),
        (r"\pL+", None),
        ("(a+)+$", None),
        ("(?:(?:a?){30}){30}", None),
        ("a?a?a?a?a?a?", None),
        ("(?P<x>ok)", True),
        ("[", None),
        ("a{1,99999999999}", None),
    ],
)
def test_a_pattern_is_compared_with_values_unless_that_can_take_long(pattern: str, expected: bool | None) -> None:
    assert matches_any(pattern, frozenset({"ok", "error"})) is expected


@given(st.text(alphabet="ab.*+?()[]{}|^$\\12,", max_size=30))
def test_no_pattern_takes_long(pattern: str) -> None:
    began = time.perf_counter()
    for one in alternatives(pattern):
        if compiled := cheap(one):
            compiled.fullmatch("a" * 30)
    assert time.perf_counter() - began < 5
