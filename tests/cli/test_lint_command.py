"""``llm-common lint``, in a process of its own and through typer's runner."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_common.cli.app import app
from llm_common.lint.rules import RULES

WRONG = 'from llm_common import action_tracking\nwith action_tracking("Menu"):\n    pass\n'
RIGHT = WRONG.replace("Menu", "menu_handler")
REPORT = "a.py:2:22: LC101 the name 'Menu' isn't in snake_case; write 'menu'\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def files() -> None:
    Path("a.py").write_text(WRONG)


def run(*arguments: str, **options: object) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["lint", *arguments], **options)  # type: ignore[arg-type]
    return answer.exit_code, answer.stdout, answer.stderr


def in_process(*arguments: str, given: str | bytes = "", **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "llm_common", "lint", *arguments],
        input=given.encode() if isinstance(given, str) else given,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_findings_go_to_stdout_and_make_the_exit_status_1() -> None:
    assert in_process("a.py") == (1, REPORT + "1 file checked, 1 finding\n", "")


def test_without_findings_the_exit_status_is_0() -> None:
    Path("a.py").write_text(RIGHT)
    assert in_process(".") == (0, "1 file checked, no findings\n", "")


def test_the_script_is_the_same_command() -> None:
    script = Path(sys.executable).parent / "llm-common"
    done = subprocess.run([script, "lint"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, REPORT + "1 file checked, 1 finding\n", "")


def test_without_paths_the_working_directory_is_checked() -> None:
    assert run()[:2] == (1, REPORT + "1 file checked, 1 finding\n")


def test_the_exit_status_can_be_0_all_the_same() -> None:
    assert run("--exit-zero")[:2] == (0, REPORT + "1 file checked, 1 finding\n")


def test_json_is_a_list_of_objects() -> None:
    status, out, _ = in_process("--format", "json", ".")
    (found,) = json.loads(out)
    assert (status, found["path"], found["line"], found["code"]) == (1, "a.py", 2, "LC101")


def test_github_gets_commands() -> None:
    message = "the name 'Menu' isn't in snake_case; write 'menu'"
    assert run("--format", "github") == (1, f"::error file=a.py,line=2,col=22,title=LC101::{message}\n", "")


def test_an_unknown_format_is_a_usage_error() -> None:
    status, _, err = run("--format", "xml")
    assert status == 2
    assert "text, json, github" in err


def test_codes_are_selected_and_ignored() -> None:
    assert run("--select", "LC3")[0] == 0
    assert run("--select", "LC3,LC101")[0] == 1
    assert run("--select", "LC3", "--select", "LC101")[0] == 1
    assert run("--ignore", "LC1")[0] == 0


def test_standard_input_is_read() -> None:
    assert in_process("-", given=WRONG)[:2] == (1, REPORT.replace("a.py", "stdin.py") + "1 file checked, 1 finding\n")
    status, out, _ = in_process("-", "--stdin-filename", "shop/menu.py", given=b"\xff")
    assert (status, out.split(" ")[0]) == (1, "shop/menu.py:1:1:")


def test_standard_input_takes_the_place_of_the_file_that_it_is_called_as() -> None:
    assert in_process(".", "-", "--stdin-filename", "a.py", given=RIGHT) == (0, "1 file checked, no findings\n", "")


def test_the_nearest_pyproject_configures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.llm_common.lint]\nignore = ["LC101"]\n')
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path / "shop")
    assert run()[0] == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ignroe = []", "has an unknown setting 'ignroe'; did you mean 'ignore'?"),
        ("ignore = [", "can't be read"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line_on_stderr(table: str, message: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.llm_common.lint]\n{table}\n")
    status, out, err = in_process(".")
    assert (status, out) == (2, "")
    assert err.startswith("llm-common lint: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "there is no file or folder 'missing.py'"),
        (["--select", "LC9O1"], "names 'LC9O1', which is no code; did you mean 'LC901'?"),
        (["--explain", "LC7"], "the option --explain names 'LC7', which is no code"),
    ],
)
def test_a_wrong_argument_is_one_line_on_stderr(arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert run("--exit-zero", *arguments)[0] == 2


def test_a_code_is_explained() -> None:
    status, out, _ = run("--explain", "lc103")
    assert status == 0
    assert out.startswith("LC103: a name that isn't a literal\n")
    assert [line for line in run("--explain", "LC4")[1].splitlines() if line.startswith("LC4")] == [
        f"{code}: {RULES[code].summary}" for code in ("LC401", "LC402")
    ]


def test_the_codes_are_listed() -> None:
    listed = "".join(f"{code}  {rule.summary}\n" for code, rule in RULES.items())
    assert run("--list") == (0, listed, "")


def test_what_the_encoding_of_the_output_lacks_is_escaped() -> None:
    Path("a.py").unlink()
    Path("меню.py").write_text(WRONG)
    status, out, err = in_process(".", PYTHONIOENCODING="ascii")
    assert (status, err) == (1, "")
    assert out.startswith("\\u043c\\u0435\\u043d\\u044e.py:2:22: LC101")


def test_a_name_of_a_file_that_is_no_text_ends_nothing() -> None:
    Path("a.py").unlink()
    with open(b"\xff\n.py", "w") as file:
        file.write(WRONG)
    for format_ in ("text", "json", "github"):
        status, out, err = in_process("--format", format_)
        assert (status, err) == (1, "")
        assert "LC101" in out


def test_the_code_is_never_run() -> None:
    Path("a.py").write_text("import b\nraise SystemExit(7)\n")
    Path("b.py").write_text("open('ran', 'w')\n")
    assert in_process(".")[0] == 0
    assert not Path("ran").exists()


def test_nothing_of_the_linted_code_nor_of_a_framework_is_imported() -> None:
    Path("a.py").write_text("import aiogram\nfrom telegram.ext import CommandHandler\nimport celery\n")
    code = (
        "import sys\n"
        "from llm_common.lint.files import find\n"
        "from llm_common.lint.config import Config\n"
        "from llm_common.lint.run import lint\n"
        "lint(find(['.'], lambda path: False), Config())\n"
        "print(sorted({'aiogram', 'telegram', 'celery', 'typer', 'rich', 'a'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_common.cli.lint.findings_in", interrupted)
    assert run() == (130, "", "")


def test_a_pipe_is_reported_and_not_waited_for() -> None:
    os.mkfifo("pipe.py")
    status, out, err = in_process("pipe.py", "a.py")
    assert (status, err) == (1, "")
    assert out == REPORT + (
        "pipe.py:1:1: LC902 this is no file but a pipe, a socket or a device; make it readable, or exclude it\n"
        "2 files checked, 2 findings\n"
    )


def on_terminal(*arguments: str, interrupted_at: bytes = b"") -> tuple[int, bytes, bytes]:
    """Return the exit status, stdout, and what is shown on stderr where that is a terminal."""
    ours, theirs = pty.openpty()
    # What was started in the background ignores interrupts, and so does what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_common", "lint", *arguments],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    shown = bytearray()

    def read() -> None:
        awaited = interrupted_at
        while True:
            try:
                shown.extend(os.read(ours, 1024))
            except OSError:  # the terminal is closed
                return
            if awaited and awaited in shown:
                awaited = b""
                process.send_signal(signal.SIGINT)

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=60)
    os.close(theirs)
    reader.join(timeout=60)
    os.close(ours)
    return process.returncode, out, bytes(shown)


def test_an_interrupted_process_ends_with_130_and_no_traceback() -> None:
    for number in range(250):
        Path(f"module_{number}.py").write_text("x = f(1)\n" * 1_000)  # some seconds, if they were all checked
    status, out, shown = on_terminal(".", interrupted_at=b"checking")
    assert (status, out) == (130, b"")
    assert b"Traceback" not in shown


def test_a_long_run_shows_its_progress_on_a_terminal_alone() -> None:
    for number in range(250):
        Path(f"module_{number}.py").write_text("x = 1\n")
    status, _, shown = on_terminal(".")
    assert status == 1
    assert b"checking" in shown
    assert in_process(".", FORCE_COLOR="1")[2] == ""


def test_a_short_run_shows_no_progress() -> None:
    status, _, shown = on_terminal(".")
    assert (status, shown) == (1, b"")


def test_our_own_demo_and_examples_have_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paths = [path for path in ("llm_common/demo", "examples") if Path(path).is_dir()]
    status, out, _ = run(*paths)
    assert out.endswith("files checked, no findings\n")
    assert status == 0


def test_the_hook_for_pre_commit_runs_this_command_on_the_whole_project() -> None:
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert "entry: llm-common lint\n" in text
    assert "pass_filenames: false" in text
