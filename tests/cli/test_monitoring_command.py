"""``llm-common monitoring export``: what it writes, shows and refuses, read by the programs that it is for."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from llm_common.cli.app import app
from llm_common.monitoring.export import LIST
from servers import program

FILES = {
    ".gitignore",
    "README.md",
    "alertmanager/alertmanager.yml",
    "alertmanager/telegram.tmpl",
    "compose.yml",
    "grafana/dashboards/actions.json",
    "grafana/dashboards/http.json",
    "grafana/provisioning/dashboards/llm_common.yml",
    "grafana/provisioning/datasources/llm_common.yml",
    "prometheus/prometheus.yml",
    "prometheus/rules/alerts.yml",
    "prometheus/rules/recording.yml",
}


def export(*arguments: str) -> tuple[int, str, str]:
    """Run the command for the folder ``stack`` of the test's own working directory."""
    answer = CliRunner().invoke(app, ["monitoring", "export", "stack", *arguments])
    assert answer.exception is None or isinstance(answer.exception, SystemExit)
    return answer.exit_code, answer.stdout, answer.stderr


def exported() -> dict[str, str]:
    return {str(path.relative_to("stack")): path.read_text() for path in Path("stack").rglob("*") if path.is_file()}


def checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_the_whole_stack_is_written_and_a_second_run_changes_nothing() -> None:
    status, out, err = export("--chat-id", "-100123")
    assert (status, err) == (0, "")
    assert set(exported()) == FILES | {LIST}
    assert out.count("created") == len(FILES)
    before = exported()
    assert export("--chat-id", "-100123") == (0, f"{len(FILES)} files, {len(FILES)} of them unchanged\n", "")
    assert exported() == before


@pytest.mark.once
@pytest.mark.parametrize("arguments", [(), ("--chat-id", "-1", "--chat", "shop_bot=-2", "--raw")])
def test_the_programs_that_it_is_for_accept_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    Path("token").write_text("1:secret\n")
    export("--alertmanager", "0.25", "--token-file", "token", "--target", "shop:8000,app=shop_bot,env=prod", *arguments)
    checked(program("promtool"), "check", "config", "stack/prometheus/prometheus.yml")
    rules = ("stack/prometheus/rules/recording.yml", "stack/prometheus/rules/alerts.yml")
    checked(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *rules)
    checked(program("amtool"), "check-config", "stack/alertmanager/alertmanager.yml")


def test_what_refers_to_another_file_of_the_stack_finds_it() -> None:
    export("--chat-id", "-1")
    stack = Path("stack")
    compose = yaml.safe_load((stack / "compose.yml").read_text())
    assert set(compose["services"]) == {"prometheus", "alertmanager", "grafana", "app"}
    mounted = [one for service in compose["services"].values() for one in service.get("volumes", [])]
    folders = [one.split(":")[0] for one in mounted if one.startswith("./")]
    assert all((stack / folder).is_dir() for folder in folders)
    assert {one.split(":")[0] for one in mounted if not one.startswith("./")} == set(compose["volumes"])
    (secret,) = compose["secrets"]
    assert compose["services"]["alertmanager"]["secrets"] == [secret]
    alertmanager = yaml.safe_load((stack / "alertmanager/alertmanager.yml").read_text())
    assert alertmanager["receivers"][0]["telegram_configs"][0]["bot_token_file"] == f"/run/secrets/{secret}"
    assert (stack / ".gitignore").read_text() == f"/{secret}\n"
    assert secret in (stack / "README.md").read_text()
    assert all((stack / "alertmanager" / name).is_file() for name in alertmanager["templates"])
    prometheus = yaml.safe_load((stack / "prometheus/prometheus.yml").read_text())
    (told,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert told.split(":")[0] in compose["services"]
    assert list((stack / "prometheus").glob(prometheus["rule_files"][0]))
    (source,) = yaml.safe_load((stack / "grafana/provisioning/datasources/llm_common.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((stack / "grafana/provisioning/dashboards/llm_common.yml").read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted


def test_a_token_in_a_file_of_ones_own_is_asked_for_and_found_there() -> None:
    export("--chat-id", "-1", "--token-file", "/etc/bot$1/token")
    files = exported()
    compose = yaml.safe_load(files["compose.yml"])
    assert compose["secrets"] == {"telegram_token": {"file": "/etc/bot$$1/token"}}  # as compose reads it: one $
    assert compose["services"]["alertmanager"]["secrets"] == [
        {"source": "telegram_token", "target": "/etc/bot$$1/token"}
    ]
    assert "bot_token_file: /etc/bot$1/token\n" in files["alertmanager/alertmanager.yml"]
    assert "(umask 077 && cat > '/etc/bot$1/token')" in files["README.md"]
    assert "telegram_token" not in files["README.md"]
    message = "token_file is './token', which Alertmanager would look for in its own folder; accepted: the whole path"
    assert message in export("--token-file", "./token")[2]


def test_what_is_said_of_the_token_is_so() -> None:
    export("--chat-id", "-1")
    assert "(umask 077 && cat > telegram_token)" in exported()["README.md"]  # the umask of the shell stays what it was
    export("--alertmanager", "0.25")
    assert "has the token of your Telegram bot in it" not in exported()["README.md"]
    Path("token").write_text("1:secret")
    export("--alertmanager", "0.25", "--chat-id", "-1", "--token-file", "token")
    assert "has the token of your Telegram bot in it" in exported()["README.md"]


def test_options_reach_the_files() -> None:
    export(
        *("--target", "shop:8000,app=shop_bot,env=prod", "--target", "bot:9000", "--chat-id", "-5"),
        *("--threshold", "action_error_share=0.25", "--objective", "http=0.9", "--raw"),
        *("--runbooks", "https://docs.example.org", "--telegram-api", "http://127.0.0.1:8081"),
    )
    files = exported()
    (scraped,) = yaml.safe_load(files["prometheus/prometheus.yml"])["scrape_configs"]
    assert scraped["static_configs"] == [
        {"targets": ["shop:8000"], "labels": {"app": "shop_bot", "env": "prod"}},
        {"targets": ["bot:9000"]},
    ]
    alerts = files["prometheus/rules/alerts.yml"]
    assert "> 0.25" in alerts
    assert "https://docs.example.org/runbooks/#actionerrorsharehigh" in alerts
    assert "http://127.0.0.1:8081" in files["alertmanager/alertmanager.yml"]
    assert ":rate5m" not in files["grafana/dashboards/actions.json"]
    assert "Prometheus scrapes `shop:8000`, `bot:9000`. Alerts" in files["README.md"]
    assert "Alerts go to Telegram: everything to the chat -5." in files["README.md"]


def test_the_table_of_pyproject_is_read_and_the_command_line_goes_first() -> None:
    Path("pyproject.toml").write_text(
        "[tool.llm_common.monitoring]\nchat_id = -7\nthresholds = {http_seconds = 2}\nchats = {shop_bot = -8}\n"
    )
    assert export("--chat-id", "-9")[0] == 0
    files = exported()
    assert "chat_id: -9" in files["alertmanager/alertmanager.yml"]
    assert "chat_id: -8" in files["alertmanager/alertmanager.yml"]
    assert "-7" not in files["alertmanager/alertmanager.yml"]


def test_running_again_shows_a_diff_and_updates_what_nobody_edited() -> None:
    export("--chat-id", "-1")
    status, out, _ = export("--chat-id", "-2")
    assert status == 0
    assert "-  - chat_id: -1" in out or "-    chat_id: -1" in out
    assert "updated      stack/alertmanager/alertmanager.yml" in out
    assert "chat_id: -2" in exported()["alertmanager/alertmanager.yml"]


def test_what_was_edited_stays_until_it_is_forced() -> None:
    export("--chat-id", "-1")
    config = Path("stack/alertmanager/alertmanager.yml")
    config.write_text(config.read_text() + "# ours\n")
    status, out, _ = export("--chat-id", "-1")
    assert status == 0
    assert "kept, edited stack/alertmanager/alertmanager.yml" in out
    assert "-# ours" in out
    status, out, _ = export("--chat-id", "-2")
    assert status == 1
    assert "To have them overwritten: --force" in out
    assert config.read_text().endswith("# ours\n")
    status, out, _ = export("--chat-id", "-2", "--force")
    assert status == 0
    assert "overwritten  stack/alertmanager/alertmanager.yml" in out
    assert "# ours" not in config.read_text()


def test_what_a_terminal_would_take_as_an_order_is_escaped_in_diffs() -> None:
    export()
    Path("stack/compose.yml").write_text("\x1b[2Jmine [bold]\n")
    assert "-\\x1b[2Jmine [bold]\n" in export()[1]


def test_a_dry_run_writes_nothing() -> None:
    status, out, _ = export("--dry-run")
    assert status == 0
    assert "would be created stack/compose.yml" in out
    assert out.splitlines()[-2].endswith("nothing written")
    assert not Path("stack").exists()
    export()
    Path("stack/compose.yml").write_text("mine\n")
    assert "would be overwritten stack/compose.yml" in export("--dry-run", "--force")[1]
    assert Path("stack/compose.yml").read_text() == "mine\n"


def test_without_a_chat_it_says_what_is_missing() -> None:
    assert "export with --chat-id" in export()[1]
    assert "No chat is set yet" in exported()["README.md"]


def test_what_runs_beside_the_containers_is_told_to_let_them_in() -> None:
    export()
    assert "has to listen on more than 127.0.0.1" in exported()["README.md"]
    export("--target", "shop:8000")
    assert "has to listen on more than 127.0.0.1" not in exported()["README.md"]


def test_an_older_alertmanager_gets_the_token_into_a_file_for_the_owner_alone_and_nothing_shows_it() -> None:
    Path("token").write_text("12345:very-secret\n")
    arguments = ("--alertmanager", "0.25", "--token-file", "token")
    _, out, err = export(*arguments, "--chat-id", "-1")
    config = Path("stack/alertmanager/alertmanager.yml")
    assert "bot_token: 12345:very-secret" in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "/alertmanager/alertmanager.yml" in exported()[".gitignore"]
    shown = out + err
    Path("token").write_text("12345:other-secret\n")
    for more in (("--chat-id", "-2"), ("--chat-id", "-3", "--dry-run"), ("--chat-id", "-3", "--force")):
        _, out, err = export(*arguments, *more)
        shown += out + err
    assert "chat_id: -3" in shown
    assert "secret" not in shown
    assert not any("secret" in text for path, text in exported().items() if path != str(config.relative_to("stack")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--token-file token can't be read: No such file or directory; Alertmanager 0.25 can't read"),
        (b"\xff", "--token-file token can't be read: it is no text"),
        (b"", "--token-file token has no token in it"),
        (b"two words", "--token-file token has no token in it"),
    ],
)
def test_a_token_that_cannot_be_had_is_an_error(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("token").write_bytes(content)
    status, _, err = export("--alertmanager", "0.25", "--token-file", "token", "--chat-id", "-1")
    assert status == 2
    assert err.startswith(f"llm-common monitoring export: {message}")
    assert not Path("stack").exists()


def test_wrong_options_and_folders_are_errors_in_one_line() -> None:
    message = (
        "llm-common monitoring export: the option --threshold names 'http_second', which doesn't exist; did you mean "
        "'http_seconds'? (accepted: min_per_minute, action_error_share, handler_seconds, task_seconds, "
        "llm_call_seconds, agent_seconds, agent_cancelled_share, http_error_share, http_seconds, "
        "dependency_failed_share)\n"
    )
    assert export("--threshold", "http_second=1")[::2] == (2, message)
    Path("stack").write_text("a file")
    status, _, err = export()
    assert (status, err) == (
        2,
        "llm-common monitoring export: stack is no folder; give the name of a folder, which may be new\n",
    )


def test_the_extra_that_is_missing_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    needing_it = ("llm_common.monitoring.stack", "llm_common.monitoring.yaml_text", "yaml")
    for name in [one for one in sys.modules if one.startswith(needing_it)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "yaml", None)
    status, _, err = export()
    assert (status, err) == (
        1,
        "llm-common monitoring needs its extra; install it with: pip install 'llm_common[monitoring]'\n",
    )


def test_the_dashboards_are_json() -> None:
    export()
    for path in Path("stack/grafana/dashboards").iterdir():
        assert json.loads(path.read_text())["title"]


def test_its_help_says_where_else_options_stand() -> None:
    assert "tool.llm_common.monitoring" in CliRunner().invoke(app, ["monitoring", "export", "--help"]).stdout
