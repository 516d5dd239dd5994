"""``llm-common doctor``, in a process of its own and through typer's runner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doctoring import HEALTHY, page_server
from llm_common.cli.app import app
from llm_common.doctor.rules import RULES
from llm_common.doctor.run import as_text, hushed


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "UVICORN_WORKERS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLM_COMMON_APP", "shop_bot")
    monkeypatch.setenv("LLM_COMMON_ENV", "prod")


def run(*arguments: str) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["doctor", *arguments])
    return answer.exit_code, answer.stdout, answer.stderr


def test_what_was_looked_at_is_shown_and_without_errors_the_exit_status_is_0() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llm_common", "doctor"],
        env={**os.environ, "LLM_COMMON_MAX_SERIE": "3"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "this environment\n"
        "  ok       DR101  the settings can be read\n"
        "  warning  DR102  nothing reads the variable LLM_COMMON_MAX_SERIE; did you mean 'LLM_COMMON_MAX_SERIES'?; "
        "mend its name, or unset it\n"
    )
    assert done.stdout.endswith("\n9 results, 0 errors, 1 warning\n")


def test_errors_make_the_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    status, out, _ = run()
    assert status == 1
    assert out.endswith("9 results, 1 error, 0 warnings\n")
    assert run("--ignore", "DR301")[0] == 0
    assert run("--select", "dr1,DR2")[0] == 0
    assert run("--select", "DR3")[0] == 1


def test_json_is_a_list_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    found = json.loads(run("--format", "json", "--select", "DR101,DR301")[1])
    assert found[0] == {
        "target": "this environment",
        "code": "DR101",
        "severity": "ok",
        "message": "the settings can be read",
        "fix": "",
    }
    assert (found[1]["code"], found[1]["severity"]) == ("DR301", "error")


def test_pages_and_processes_are_looked_at_each_once() -> None:
    with page_server() as url:
        status, out, _ = run(url, url, str(os.getpid()))
    assert status == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")][:2] == [url, f"process {os.getpid()}"]


def test_that_a_target_cannot_be_looked_at_is_always_said() -> None:
    with page_server() as url:
        pass
    assert run(url, "--select", "DR1")[0] == 1
    assert run(url, "--ignore", "DR401")[0] == 0


def test_a_token_comes_from_a_file_and_is_shown_nowhere() -> None:
    Path("token").write_text("s3cret-token\n")
    with page_server(HEALTHY.replace("shop_bot", "s3cret-token"), token="s3cret-token") as url:
        status, out, err = run(url, "--token-file", "token")
        assert status == 0
        assert run(url)[0] == 1
        assert run(url + "?key=s3cret-token", "--token-file", "token")[1].splitlines()[0] == f"{url}?***"
    assert "s3cret" not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shop"], "there is nothing to look at that is called 'shop'; name the address of a page"),
        (["http://user:s3cret@127.0.0.1/metrics"], "an address has credentials in it, which isn't supported"),
        (["--select", "DR7"], "the option --select names 'DR7', which is no code"),
        (["--explain", "DR7"], "the option --explain names 'DR7', which is no code"),
        (["1", "--token-file", "missing"], "the option --token-file names 'missing': No such file or directory"),
        (["1", "--token-file", "bad"], "the option --token-file names 'bad', which isn't UTF-8"),
        (
            ["1", "--token-file", "two"],
            "the option --token-file names 'two': the token of the metrics server has other",
        ),
    ],
)
def test_a_wrong_argument_is_one_line_on_stderr(arguments: list[str], message: str) -> None:
    Path("bad").write_bytes(b"\xff")
    Path("two").write_text("s3cret s3cret")
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"llm-common doctor: {message}")
    assert len(err.splitlines()) == 1
    assert "s3cret" not in err


def test_an_unknown_format_is_a_usage_error() -> None:
    assert run("--format", "github")[0] == 2


def test_codes_are_listed_and_explained() -> None:
    assert run("--list") == (0, "".join(f"{code}  {rule.summary}\n" for code, rule in RULES.items()), "")
    status, out, _ = run("--explain", "dr301")
    assert status == 0
    assert out.startswith("DR301: several workers without PROMETHEUS_MULTIPROC_DIR\n")


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_common.cli.doctor.looked_at", interrupted)
    assert run()[0] == 130


def test_values_that_look_like_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "sk-123456")
    monkeypatch.setenv("LLM_COMMON_TOKEN", "another-secret")
    monkeypatch.setenv("LLM_COMMON_MAX_SERIES", "sk-123456")
    monkeypatch.setenv("LLM_COMMON_STRICT", "https://user:hidden@host/")
    out = run()[1]
    assert "nothing reads the variable LLM_COMMON_TOKEN" in out
    assert "'https://***@host/'" in out
    assert not any(secret in out for secret in ("sk-123456", "another-secret", "hidden"))
    monkeypatch.delenv("LLM_COMMON_STRICT")
    assert "LLM_COMMON_MAX_SERIES is '***'" in run()[1]


def test_it_needs_no_other_extra() -> None:
    code = (
        "import sys\nfor name in ('promql_parser', 'yaml', 'grafana_foundation_sdk', 'fastapi', 'httpx', 'uvicorn'):\n"
        "    sys.modules[name] = None\n"
        "from llm_common.cli import main\nsys.argv = ['llm-common', 'doctor']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_short_values_and_words_are_left_alone() -> None:
    assert hushed("is the key on? yes=no", {"KEY": "key", "SHOP": "the key"}) == "is the key on? yes=no"
    assert as_text([]) == "0 results, 0 errors, 0 warnings\n"


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter2@h/metrics",
        "user:hunter2@h:1/metrics",
        "https:/user:hunter2@h/",
        "http://user:hun/hunter2@h/",
        "redis://:hunter2@h:6379/0",
        "https://hunter2@h/x",
        "http://h/?hunter2",
        "http://h/?token='hunter2'",
        "'http://h/?token=hunter2'",
    ],
)
def test_no_report_shows_credentials_however_the_address_is_written(text: str) -> None:
    assert "hunter2" not in hushed(f"the page {text} can't be read; look at it", {})
    assert hushed(f"{text} x", {}).endswith(" x")


def test_what_is_no_secret_stays() -> None:
    for text in (
        "http://shop:8000/metrics",
        "env is 'product'; did you mean 'prod'?",
        "a@b",
        "https://h/@user",
        "PROMETHEUS_MULTIPROC_DIR",
    ):
        assert hushed(text, {}) == text
