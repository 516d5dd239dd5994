"""Reading code: encodings, syntax, depth, comments. Nothing that a file may hold is more than a finding."""

import ast
import codecs
import random
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import llm_common
from llm_common.lint.config import Config
from llm_common.lint.files import File, standard_input
from llm_common.lint.resolve import Resolver
from llm_common.lint.run import lint
from llm_common.lint.scopes import collect
from llm_common.lint.source import Ignore, ReadError, comments, decode, parse
from llm_common.reporting.findings import Finding

IMPORT = b"from llm_common import action_tracking\n"
WRONG = IMPORT + b'with action_tracking("Menu"):\n    pass\n'

SOURCES = [path.read_bytes() for path in sorted(Path(llm_common.__file__).parent.glob("**/*.py"))]
CASES = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("cases/*.txt"))]


def findings(code: bytes) -> list[Finding]:
    return lint([standard_input(code, "code.py")], Config())


def codes(code: bytes) -> list[str]:
    return [one.code for one in findings(code)]


@pytest.mark.parametrize(
    "code",
    [
        WRONG,
        codecs.BOM_UTF8 + WRONG,
        codecs.BOM_UTF8 + b"# coding: utf-8\n" + WRONG,
        b"# -*- coding: koi8-r -*-\n" + WRONG.replace(b"pass", "x = 'меню'".encode("koi8-r")),
        b"#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\n" + WRONG.replace(b"pass", b"x = '\xe9'"),
        b"# coding: utf-7\n" + WRONG,
        WRONG.replace(b"\n", b"\r\n"),
        WRONG.replace(b"\n", b"\r"),
        b"\x0c" + WRONG,
        WRONG.removesuffix(b"\n"),
    ],
)
def test_code_is_read_in_the_encoding_that_it_declares_whatever_ends_its_lines(code: bytes) -> None:
    assert codes(code) == ["LC101"]


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        (b"x = 1\ny = '\xff'\n", 2, "invalid"),
        (b"# comment\n# \xff\n", 2, "isn't valid utf-8"),
        (b"# coding: ascii\n\nx = '\xd0\x9c'\n", 3, "ascii"),
        (b"# coding: no-such-encoding\n", 1, "unknown encoding"),
        (b"# coding: rot13\nx = 1\n", 1, "rot13"),
        (b"# coding: zlib\nx = 1\n", 1, "zlib"),
        (b"# coding: undefined\nx = 1\n", 1, "undefined"),
        (b"# coding: raw_unicode_escape\nx = '\\ud800'\n", 1, "surrogates"),
        (codecs.BOM_UTF8 + b"# coding: latin-1\nx = 1\n", 1, "encoding problem"),
        (codecs.BOM_UTF16 + "x = 1\n".encode("utf-16-le"), 1, "invalid"),
    ],
)
def test_what_is_not_in_its_encoding_is_a_finding(code: bytes, line: int, message: str) -> None:
    (one,) = findings(code)
    assert (one.code, one.line) == ("LC902", line)
    assert message in one.message
    assert "\n" not in one.text


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (b"x = 1\ndef menu(:\n", 2),
        (b"if x:\npass\n", 2),
        (b"x = 'open\n", 1),
        (b"x = '''open\n", 1),
        (b"if x:\n\ty = 1\n        z = 2\n", 3),
        (b"x = 1\x00\n", 1),
        (b"print 'hello'\n", 1),
    ],
)
def test_what_is_not_python_is_a_finding_in_the_line_of_the_parser(code: bytes, line: int) -> None:
    (one,) = findings(code)
    assert (one.code, one.line) == ("LC901", line)


@pytest.mark.parametrize(
    "code",
    [
        "(" * 500 + ")" * 500,
        "-" * 100_000 + "1",
        "x" + ".y" * 20_000,
        "x = " + "1 + " * 20_000 + "1",
        "x = " + "[" * 150 + "]" * 150,
        "x" + "(1)" * 20_000,
        "from llm_common import action_tracking\nwith action_tracking(" + "1 + " * 900 + "1): pass",
        "f = " + "lambda: " * 900 + "1",
        "".join(f"{' ' * depth}if x:\n" for depth in range(99)) + " " * 99 + "pass",
    ],
    ids=["parentheses", "signs", "attributes", "sums", "lists", "calls", "a name", "lambdas", "blocks"],
)
def test_deep_nesting_ends_nothing(code: str) -> None:
    assert set(codes(code.encode())) <= {"LC901", "LC103"}


def test_constants_that_are_either_of_two_are_not_followed_all_the_ways() -> None:
    either = "".join(f"n{number} = n{number - 1} if x else n{number - 1}\n" for number in range(1, 13))
    names = f"from llm_common import action_tracking\nn0 = 'menu_handler'\n{either}"
    assert codes(f"{names}with action_tracking(n5): pass\n".encode()) == []
    assert codes(f"{names}with action_tracking(n12): pass\n".encode()) == ["LC103"]


@pytest.mark.parametrize("problem", [RecursionError, MemoryError])
def test_code_that_is_too_deep_for_a_check_is_a_finding(
    problem: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*args: object, **kwargs: object) -> None:
        raise problem

    monkeypatch.setattr("llm_common.lint.run.check", too_deep)
    assert codes(WRONG) == ["LC901"]


def test_a_sibling_that_is_too_deep_is_not_followed(tmp_path: Path) -> None:
    Path("names.py").write_text("x = " + "-" * 100_000 + "1\nMENU = 'menu_handler'\n")
    code = IMPORT + b"from names import MENU\nwith action_tracking(MENU): pass\n"
    assert codes(code) == ["LC103"]


def test_the_warnings_of_the_code_are_not_ours() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert codes(b"x = '\\d'\nassert (x, 'always')\nx is 1\n") == []


def test_columns_are_counted_in_characters() -> None:
    (one,) = findings(IMPORT + "x = 'меню'; print(action_tracking('Меню'))\n".encode())
    assert (one.line, one.column, one.end_line, one.end_column) == (2, 35, 2, 41)


def test_the_end_of_a_finding_may_be_in_another_line() -> None:
    (one,) = findings(IMPORT + b'with action_tracking("Me" \\\n  "nu"):\n    pass\n')
    assert (one.line, one.column, one.end_line, one.end_column) == (2, 22, 3, 7)


@given(st.binary(max_size=200))
def test_any_bytes_give_findings_and_no_exception(code: bytes) -> None:
    findings(code)


@given(st.text(max_size=200))
@example("# llm-common: ignore[\n")
@example("x = (  # llm-common: ignore\n")
@example("x = '''\n# llm-common: ignore")
@example("\\\n# llm-common: ignore")
@example("from . import x\nfrom .. import *\nx()\n")
@example("from ....................... import x\nwith x(): pass\n")
def test_any_text_gives_findings_and_no_exception(code: str) -> None:
    findings(code.encode("utf-8", "surrogatepass"))


@given(st.sampled_from(SOURCES + CASES), st.randoms(use_true_random=False))
def test_real_code_with_mistakes_gives_findings_and_no_exception(code: bytes, chance: random.Random) -> None:
    lines = code.splitlines(keepends=True)
    begin = chance.randrange(len(lines))
    part = lines[begin : begin + 60]
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(part))
        change = chance.randrange(4)
        if change == 0:
            del part[at]
            part = part or [b"\n"]
        elif change == 1:
            part[at] = part[chance.randrange(len(part))]
        elif change == 2:
            cut = chance.randrange(len(part[at]) + 1)
            part[at] = (
                part[at][:cut] + chance.choice([b"(", b"'", b":", b"\xff", b"\\", b"with ", b"*"]) + part[at][cut:]
            )
        else:
            part[at] = part[at].replace(b"(", chance.choice([b"(*", b"(**", b"[", b"(name="]))
    whole = [one for one in [*lines[:3], *part] if chance.random() > 0.02]
    findings(IMPORT + b"".join(whole))


@given(st.sampled_from([code for code in CASES if b"--- " not in code] or CASES), st.data())
def test_any_subset_of_the_statements_of_the_cases_can_be_checked(code: bytes, data: st.DataObject) -> None:
    """Statements that no author would write in this order: what they bind may be bound before, after or never."""
    preamble, *texts = code.decode().split("\n=== ")
    chosen = data.draw(st.lists(st.sampled_from(texts), min_size=1, max_size=4))
    body = "\n".join("\n".join(text.splitlines()[1:]) for text in chosen)
    whole = f"{preamble}\n{body}\n"
    try:
        tree = ast.parse(whole)
    except SyntaxError:
        return
    statements = data.draw(st.permutations(tree.body))
    shuffled = ast.unparse(ast.Module([*tree.body[:1], *statements[:12]], []))
    found = findings(shuffled.encode())
    assert found == findings(shuffled.encode())
    assert all(0 < one.line <= shuffled.count("\n") + 1 for one in found)


def test_what_cannot_be_read_says_so_by_its_exception() -> None:
    with pytest.raises(ReadError, match="isn't valid utf-8"):
        decode(b"\xff")
    with pytest.raises(ReadError, match="this isn't Python"):
        parse("x =")


def test_a_file_is_read_once_though_others_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a_names.py").write_text("MENU = 'menu_handler'\n")
    Path("b.py").write_text("from a_names import MENU\nfrom llm_common import action_tracking\naction_tracking(MENU)\n")
    read: list[str] = []
    monkeypatch.setattr("llm_common.lint.resolve.read", lambda path: read.append(path))
    files = [File(str(tmp_path / name), name) for name in ("a_names.py", "b.py")]
    assert [one.code for one in lint(files, Config())] == ["LC303"]
    assert read == []


def test_a_resolver_tells_nothing_of_what_is_no_name() -> None:
    resolver = Resolver()
    scope = collect(ast.parse("x = 1"), "code.py").scope
    assert resolver.dotted(ast.parse("x[0]", mode="eval").body, scope) == ""


def test_comments_are_found_up_to_where_the_code_breaks_off() -> None:
    assert comments("# llm-common: ignore\nx = (\n") == ([Ignore(1, 1, 21, frozenset())], [])
