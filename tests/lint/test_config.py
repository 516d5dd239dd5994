"""``[tool.llm_common.lint]``, and the options that go before it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.errors import ConfigurationError
from llm_common.lint.config import Config, compiled, configured
from llm_common.lint.files import find, standard_input
from llm_common.lint.rules import ALWAYS, RULES
from llm_common.lint.run import lint
from llm_common.settings import Pyproject

CODE = b"""
from llm_common import action_tracking

def menu(user):
    with action_tracking("Menu"):
        try:
            load()
        except KeyError:
            pass
    action_tracking(user)
"""


def project(**table: Any) -> Pyproject:
    return Pyproject(Path("/shop/pyproject.toml"), {"lint": table})


def codes(config: Config, name: str = "code.py") -> list[str]:
    return [one.code for one in lint([standard_input(CODE, name)], config)]


def test_without_a_file_every_rule_is_in_force() -> None:
    assert configured(None).codes == set(RULES)
    assert configured(Pyproject(Path("pyproject.toml"), {})) == Config(root=".")
    assert codes(configured(None)) == ["LC101", "LC303", "LC103"]


def test_select_chooses_codes_and_groups() -> None:
    assert configured(project(select=["LC2", "lc101"])).codes == {"LC101", "LC201", "LC202", "LC203", "LC204"} | ALWAYS
    assert codes(configured(project(select=["LC303"]))) == ["LC303"]


def test_ignore_takes_codes_and_groups_out_of_what_is_selected() -> None:
    assert codes(configured(project(select=["LC1"], ignore=["LC103"]))) == ["LC101"]
    assert codes(configured(project(ignore=["LC1"]))) == ["LC303"]
    assert configured(project(ignore=["LC"])).codes == set()


def test_on_the_command_line_select_replaces_and_ignore_adds() -> None:
    file = project(select=["LC101"], ignore=["LC303"])
    assert codes(configured(file, select=["LC1,LC3"])) == ["LC101", "LC103"]
    assert codes(configured(file, ignore=["LC101", "LC102"])) == []
    assert codes(configured(None, select=["LC101, LC103", "LC303,"])) == ["LC101", "LC303", "LC103"]


def test_what_cannot_be_read_is_reported_whatever_is_selected_unless_it_is_ignored() -> None:
    files = [standard_input(b"def menu(:", "a.py"), standard_input(b"\xff", "b.py")]
    assert [one.code for one in lint(files, configured(project(select=["LC101"])))] == ["LC901", "LC902"]
    assert lint(files, configured(project(ignore=["LC9"]))) == []


def test_files_may_ignore_codes(tmp_path: Path) -> None:
    table = {"tests/**": ["LC1"], "scripts": ["LC303"], "test_*.py": ["LC"]}
    config = configured(Pyproject(tmp_path / "pyproject.toml", {"lint": {"per-file-ignores": table}}))
    assert codes(config, "tests/a.py") == ["LC303"]
    assert codes(config, "scripts/deep/a.py") == ["LC101", "LC103"]
    assert codes(config, "tests/scripts/a.py") == []
    assert codes(config, "deep/test_menu.py") == []
    assert codes(config, "menu_test.py") == ["LC101", "LC303", "LC103"]


def test_a_file_that_ignores_shared_names_takes_none_from_others(tmp_path: Path) -> None:
    menu = b"from llm_common import action_tracking\nwith action_tracking('menu_handler'):\n    pass\n"
    files = [standard_input(menu, "a_tests/menu.py"), standard_input(menu, "shop/menu.py")]
    assert [one.code for one in lint(files, Config())] == ["LC104"]
    config = configured(Pyproject(tmp_path / "pyproject.toml", {"lint": {"per-file-ignores": {"a_tests": ["LC104"]}}}))
    assert lint(files, config) == []


def test_narrow_clauses_are_reported_on_demand() -> None:
    assert codes(configured(project(**{"narrow-excepts": True}))) == ["LC101", "LC301", "LC303", "LC103"]


def test_exclude_is_relative_to_the_file_that_it_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop/old/a.py", "shop/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    config = configured(Pyproject(tmp_path / "pyproject.toml", {"lint": {"exclude": ["shop/old"]}}))
    monkeypatch.chdir(tmp_path / "shop")
    assert [file.shown for file in find(["."], config.excludes)] == ["b.py"]


def test_a_comment_for_what_is_not_in_force_is_not_without_use() -> None:
    code = b"x = 1  # llm-common: ignore[LC101]\ny = 1  # llm-common: ignore\n"
    files = [standard_input(code, "a.py")]
    assert [one.line for one in lint(files, configured(None))] == [1, 2]
    assert [one.line for one in lint(files, configured(None, ignore=["LC2"]))] == [1]
    assert lint(files, configured(None, ignore=["LC1"])) == []
    assert lint(files, configured(None, ignore=["LC903"])) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"selct": []}, r"unknown setting 'selct'; did you mean 'select'\? \(accepted: select, ignore,"),
        ({"per_file_ignores": {}}, "did you mean 'per-file-ignores'?"),
        ({"zzz": 1}, r"unknown setting 'zzz' \(accepted"),
        (
            {"select": ["LC1O1"]},
            r"select in \[tool.llm_common.lint\] of /shop/pyproject.toml names 'LC1O1', .* 'LC101'",
        ),
        ({"select": ["E501"]}, r"names 'E501', which is no code"),
        ({"select": "LC101"}, "select in .* is 'LC101'; accepted: a list of texts"),
        ({"ignore": [1]}, r"ignore in .* is \[1\]; accepted: a list of texts"),
        ({"exclude": "tests"}, "exclude in .* is 'tests'; accepted: a list of texts"),
        ({"narrow-excepts": 1}, "narrow-excepts in .* is 1; accepted: true or false"),
        ({"exclude": ["[z-a].py"]}, r"the pattern '\[z-a\].py' of .* can't be read: bad character range z-a"),
        ({"per-file-ignores": {"[z-a]": ["LC1"]}}, r"the pattern '\[z-a\]' of .* can't be read"),
        ({"per-file-ignores": ["a"]}, "accepted: a table of lists of codes by pattern"),
        ({"per-file-ignores": {"a.py": "LC1"}}, "per-file-ignores.a.py in .* accepted: a list of texts"),
        ({"per-file-ignores": {"a.py": ["LC7"]}}, "per-file-ignores.a.py in .* names 'LC7'"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_where_it_stands(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        configured(project(**table))


def test_a_table_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"\[tool.llm_common.lint\] in .* is 1; it must be a table"):
        configured(Pyproject(Path("pyproject.toml"), {"lint": 1}))


def test_an_unknown_code_on_the_command_line_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="the option --select names 'LC9999', which is no code"):
        configured(None, select=["LC9999"])


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("tests", ["tests", "tests/a.py", "shop/tests/a.py"], ["mytests/a.py", "tests.py"]),
        ("tests/", ["tests/a.py"], ["tests.py"]),
        ("./tests/*.py", ["tests/a.py"], ["tests/deep/a.py", "shop/tests/a.py"]),
        ("/tests/a.py", ["tests/a.py"], ["shop/tests/a.py"]),
        ("*.py", ["a.py", "deep/b.py"], ["a.pyx"]),
        ("shop/**/old_*.py", ["shop/old_a.py", "shop/x/y/old_b.py"], ["shop/new.py"]),
        ("shop/**", ["shop/a.py", "shop/x/b.py"], ["shops/a.py"]),
        ("v?.py", ["v1.py"], ["v10.py", "v/.py"]),
        ("v[12].py", ["v1.py"], ["v3.py"]),
        ("v[!12].py", ["v3.py"], ["v1.py"]),
        ("a+b(c).py", ["a+b(c).py"], ["aab(c).py"]),
        ("[", ["["], ["a"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [path for path in matching + others if compiled(pattern).match(path)] == matching


@given(st.text(max_size=30))
def test_any_pattern_can_be_read(pattern: str) -> None:
    compiled(pattern)
