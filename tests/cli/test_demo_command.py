import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from llm_common.cli.app import app
from llm_common.demo.run import DemoError, Options

FIX = "llm-common demo needs its extra; install it with: pip install 'llm_common[demo]'\n"

Runs = list[tuple[Options, bool]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Keep the options of each demo that would run, and whether it would have a terminal."""
    found: Runs = []

    def run_demo(options: Options, console: Console) -> None:
        found.append((options, console.is_terminal))

    monkeypatch.setattr("llm_common.demo.run.run_demo", run_demo)
    return found


def test_the_options_have_defaults(runs: Runs) -> None:
    assert CliRunner().invoke(app, ["demo"]).exit_code == 0
    assert runs == [(Options(seconds=30, port=0, backends=None, seed=1, outage=0), False)]


def test_every_option_reaches_the_demo(runs: Runs) -> None:
    arguments = ["demo", "--seconds", "2.5", "--port", "9101", "--backend", "memory,noop", "--seed", "7"]
    arguments += ["--outage", "1.5"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert runs == [(Options(seconds=2.5, port=9101, backends="memory,noop", seed=7, outage=1.5), False)]


def test_forced_colours_make_no_terminal_of_a_pipe(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    CliRunner().invoke(app, ["demo"])
    assert [terminal for _, terminal in runs] == [False]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_seconds_that_cannot_be_waited_for_are_a_usage_error(seconds: str, runs: Runs) -> None:
    answer = CliRunner().invoke(app, ["demo", f"--seconds={seconds}"])
    assert answer.exit_code == 2
    assert "--seconds" in answer.output
    assert runs == []


def test_a_port_that_is_none_is_a_usage_error(runs: Runs) -> None:
    assert CliRunner().invoke(app, ["demo", "--port", "65536"]).exit_code == 2
    assert runs == []


@pytest.mark.parametrize("status", [1, 2])
def test_a_demo_that_cannot_begin_says_why_in_one_line(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_demo(options: Options, console: Console) -> None:
        raise DemoError("the well is dry", status)

    monkeypatch.setattr("llm_common.demo.run.run_demo", run_demo)
    answer = CliRunner().invoke(app, ["demo"])
    assert (answer.exit_code, answer.stdout, answer.stderr) == (status, "", "llm-common demo: the well is dry\n")


@pytest.mark.parametrize("missing", ["fastapi", "httpx", "uvicorn"])
def test_without_the_extra_the_fix_is_one_line_on_stderr(missing: str) -> None:
    # In a process of its own, since modules that are imported once more are not the same.
    code = "import sys; sys.modules[sys.argv.pop()] = None; from llm_common.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, "demo", missing], capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", FIX)
