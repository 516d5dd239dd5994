import importlib
import importlib.metadata
import sys

import pytest
from typer.testing import CliRunner

import llm_common.cli
from llm_common.cli.app import app

FIX = "llm-common needs its command line extra; install it with: pip install 'llm_common[cli]'\n"


@pytest.fixture
def commands_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("llm_common.cli.app", "llm_common.cli.demo"):
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("missing", ["typer", "rich.console"])
def test_without_the_extra_the_fix_is_one_line_on_stderr(
    missing: str,
    commands_not_imported: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as exit_:
        llm_common.cli.main()
    assert exit_.value.code == 1
    assert capsys.readouterr() == ("", FIX)


def test_another_module_that_is_missing_is_not_mistaken_for_the_extra(
    commands_not_imported: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llm_common.cli.demo", None)
    with pytest.raises(ModuleNotFoundError, match=r"llm_common\.cli\.demo"):
        llm_common.cli.main()


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["llm-common", "--help"])
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module("llm_common.__main__")
    assert exit_.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_common.cli.app.version", {"llm_common": "4.5.6"}.__getitem__)
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, "llm-common 4.5.6\n")


def test_the_version_in_a_source_tree_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("llm_common.cli.app.version", nowhere)
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, "llm-common (not installed)\n")


def test_without_arguments_the_help_is_shown() -> None:
    assert "--version" in CliRunner().invoke(app, []).output
