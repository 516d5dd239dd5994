"""``llm-common check``, in a process of its own and through typer's runner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import servers
from checking import dashboard, rule_file
from llm_common.cli.app import app
from llm_common.monitoring.checking.rules import RULES, counted

EXPRESSION = 'sum by (app) (rate(genapp_actions_total{status="error"}[5m]))'
WRONG = f"groups:\n  - name: shop\n    rules:\n      - alert: ActionsFail\n        expr: {EXPRESSION}\n"
RIGHT = WRONG.replace("genapp_actions_total", "genapp_action_count_total")
REPORT = (
    "a.yml:5:34: MC101 alert ActionsFail: there is no metric 'genapp_actions_total'; write 'genapp_action_size_total'\n"
    f"    {EXPRESSION}\n                       ^\n"
    "1 file checked, 1 finding\n"
)


@pytest.fixture(autouse=True)
def files() -> None:
    Path("a.yml").write_text(WRONG)


def run(*arguments: str, **options: object) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["check", *arguments], **options)  # type: ignore[arg-type]
    return answer.exit_code, answer.stdout, answer.stderr


def in_process(*arguments: str, given: bytes = b"", **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "llm_common", "check", *arguments],
        input=given,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_findings_go_to_stdout_and_make_the_exit_status_1() -> None:
    assert in_process("a.yml") == (1, REPORT, "")


def test_without_findings_the_exit_status_is_0() -> None:
    Path("a.yml").write_text(RIGHT)
    assert run(".") == (0, "1 file checked, no findings\n", "")


def test_warnings_alone_leave_the_exit_status_0() -> None:
    Path("page").write_text(counted("1.0", name="Menu"))
    status, out, _ = run("page")
    assert status == 0
    assert out.startswith("page:2:1: MC512 warning: the name 'Menu' isn't in snake_case; write 'menu'\n")
    assert out.endswith("1 file checked, 1 finding, 1 of them a warning\n")


def test_json_is_a_list_of_objects() -> None:
    status, out, _ = run("--format", "json", "a.yml")
    (found,) = json.loads(out)
    assert (status, found["line"], found["code"], found["subject"], found["excerpt"]) == (
        1,
        5,
        "MC101",
        "alert ActionsFail",
        EXPRESSION,
    )


def test_github_gets_commands() -> None:
    assert run("--format", "github", "a.yml")[1].startswith(
        "::error file=a.yml,line=5,col=34,title=MC101::alert Actions"
    )


def test_codes_are_selected_and_ignored() -> None:
    assert run("--select", "MC2", "a.yml")[0] == 0
    assert run("--select", "MC2,MC1", "a.yml")[0] == 1
    assert run("--ignore", "mc101", "a.yml")[0] == 0
    Path("a.yml").write_text("groups: [")
    assert run("--select", "MC2", "a.yml")[0] == 1
    assert run("--ignore", "MC9", "a.yml")[0] == 0


def test_standard_input_is_read() -> None:
    assert in_process("-", given=WRONG.encode())[:2] == (1, REPORT.replace("a.yml", "<stdin>"))


def test_rules_and_dashboards_are_checked_together() -> None:
    Path("a.yml").write_text(rule_file("sum by (app) (genapp_action_in_progress)").replace("own:0", "own:genapp_busy"))
    Path("b.json").write_text(dashboard({"expr": 'own:genapp_busy{app="a"}'}))
    assert run("a.yml", "b.json")[0] == 0
    assert run("b.json")[0] == 1


def test_a_page_of_the_application_is_known() -> None:
    Path("page").write_text("# TYPE shop_orders_total counter\nshop_orders_total 1\n")
    Path("a.yml").write_text(rule_file("rate(shop_order_total[5m])"))
    assert run("a.yml")[0] == 0
    assert run("a.yml", "--metrics", "page")[0] == 1


def test_labels_of_targets_are_known() -> None:
    Path("a.yml").write_text(rule_file('up{pod="a"} + on (zone) up'))
    assert run("a.yml", "--target-label", "pod")[0] == 1
    assert run("a.yml", "--target-label", "pod", "--target-label", "zone")[0] == 0


def test_bounds_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.yml").write_text(rule_file('genapp_action_duration_sec_bucket{le="4"}'))
    assert run("a.yml")[0] == 1
    monkeypatch.setenv("LLM_COMMON_ACTION_DURATION_BUCKETS", "1,4")
    assert run("a.yml")[0] == 0
    monkeypatch.delenv("LLM_COMMON_ACTION_DURATION_BUCKETS")
    Path("pyproject.toml").write_text("[tool.llm_common]\naction_duration_buckets = [4]\n")
    assert run("a.yml")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to check; name files, folders or addresses of pages"),
        (["missing.json"], "there is no file or folder 'missing.json'"),
        (["a.yml", "--select", "MC7"], "the option --select names 'MC7', which is no code"),
        (["a.yml", "--metrics", "missing"], "there is no file or folder 'missing'"),
        (["a.yml", "--metrics", "a.yml"], "the option --metrics names 'a.yml': "),
        (["--explain", "MC7"], "the option --explain names 'MC7', which is no code"),
    ],
)
def test_a_wrong_argument_is_one_line_on_stderr(arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"llm-common check: {message}")
    assert len(err.splitlines()) == 1


def test_an_unknown_format_is_a_usage_error() -> None:
    assert run("--format", "xml", "a.yml")[0] == 2


@pytest.mark.parametrize("seconds", ["0", "nan", "inf", "1e300"])
def test_a_time_that_nobody_can_wait_is_a_usage_error(seconds: str) -> None:
    assert run("--timeout", seconds, "http://127.0.0.1:1/")[0] == 2


def test_codes_are_listed_and_explained() -> None:
    assert run("--list") == (0, "".join(f"{code}  {rule.summary}\n" for code, rule in RULES.items()), "")
    status, out, _ = run("--explain", "mc302")
    assert status == 0
    assert out.startswith("MC302: a value of le that is no bound of the histogram\n")


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_common.monitoring.checking.run.check", interrupted)
    assert run("a.yml")[0] == 130


def test_without_its_extra_it_says_how_to_install_it() -> None:
    code = (
        "import sys\nsys.modules['promql_parser'] = None\n"
        "from llm_common.cli import main\nsys.argv = ['llm-common', 'check', 'a.yml']\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "llm-common check needs its extra; install it with: pip install 'llm_common[monitoring]'\n"


@pytest.mark.once
@pytest.mark.e2e
def test_the_exported_stack_and_the_demo_honour_the_contract() -> None:
    exported = CliRunner().invoke(app, ["monitoring", "export", "stack"])
    assert exported.exit_code == 0, exported.output
    assert run("stack") == (0, "4 files checked, no findings\n", "")
    with servers.demo() as target:
        page = f"http://{target}/metrics"
        assert run(page)[0] == 0
        assert run("stack", "--metrics", page)[0] == 0
        assert run("stack", page, "a.yml")[:2] == (1, REPORT.replace("1 file", "6 files"))
