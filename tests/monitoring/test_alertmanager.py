"""The configuration of Alertmanager: it is accepted, and alerts go where and when it says."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting import OWN_VERSION, Alertmanager, alertmanager, firing, resolved
from llm_common.errors import ConfigurationError
from llm_common.monitoring.alertmanager import TEMPLATE, alertmanager_file, telegram_template
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from servers import program
from telegram_api import SECRET, TOKEN
from telegram_chat import Chats, telegram_chats

pytestmark = pytest.mark.once

CHATS = (("shop_bot", -7), ('odd "app\\', 8))


def check(directory: Path, config: str) -> subprocess.CompletedProcess[str]:
    (directory / "alertmanager.yml").write_text(config)
    (directory / TEMPLATE).write_text(telegram_template())
    command = [program("amtool"), "check-config", "alertmanager.yml"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "options",
    [
        Options(alertmanager=OWN_VERSION, chat_id=-5),
        Options(alertmanager=OWN_VERSION, chat_id=5, chats=CHATS, telegram_api="http://127.0.0.1:8081"),
        Options(alertmanager=OWN_VERSION, chats=CHATS),
        Options(alertmanager=OWN_VERSION, chats=(*CHATS, *CHATS)),
        Options(),
    ],
    ids=["one chat", "chats of applications", "only chats of applications", "each twice", "no chat yet"],
)
def test_amtool_accepts_the_configuration(options: Options, tmp_path: Path) -> None:
    done = check(tmp_path, alertmanager_file(options, TOKEN))
    assert done.returncode == 0, done.stderr
    assert " - 1 templates" in done.stdout


def test_from_0_26_on_the_token_is_read_from_its_file_and_all_else_is_the_same(tmp_path: Path) -> None:
    options = Options(chat_id=5, chats=CHATS, token_file="/etc/alertmanager/token")
    text = alertmanager_file(options, TOKEN)
    assert SECRET not in text
    assert text == alertmanager_file(options)
    receivers = yaml.safe_load(text)["receivers"]
    assert [(one["bot_token_file"], one["chat_id"]) for each in receivers for one in each["telegram_configs"]] == [
        ("/etc/alertmanager/token", 5),
        ("/etc/alertmanager/token", -7),
        ("/etc/alertmanager/token", 8),
    ]
    # Debian's amtool 0.25 doesn't know that field yet; the rest it can judge.
    assert check(tmp_path, text.replace("bot_token_file: /etc", "bot_token: /etc")).returncode == 0


def test_an_older_alertmanager_without_a_token_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(
        ConfigurationError, match=r"Alertmanager 0\.25 can't read .* give the token, or use Alertmanager 0\.26"
    ):
        alertmanager_file(Options(alertmanager=(0, 25), chat_id=5))


def test_only_alerts_that_there_are_make_others_superfluous_or_are_it() -> None:
    rules = yaml.safe_load(alertmanager_file(Options()))["inhibit_rules"]
    matchers = [one for rule in rules for one in (*rule["source_matchers"], *rule["target_matchers"])]
    named = {name for one in matchers if one.startswith("alertname") for name in one.split('"')[1].split("|")}
    assert named == {
        *(f"{kind}BudgetBurns{speed}" for kind in ("Action", "Http") for speed in ("Fast", "Slowly")),
        *("TargetDown", "TaskStopped", "HandlerTrafficVanished"),
    }
    assert named <= {one.name for one in alerts(Options())}


@pytest.fixture(scope="module")
def chats() -> Iterator[Chats]:
    with telegram_chats() as chats:
        yield chats


@pytest.fixture(scope="module")
def server(chats: Chats, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    options = Options(chat_id=5, chats=CHATS)
    with alertmanager(tmp_path_factory.mktemp("alertmanager"), chats, options, times=300) as server:
        yield server


@pytest.mark.e2e
@pytest.mark.parametrize("severity", ["critical", "warning"])
@pytest.mark.parametrize(("app", "chat"), [*CHATS, ("other", 5)])
def test_an_application_with_a_chat_of_its_own_is_told_of_there_alone(
    server: Alertmanager, chats: Chats, app: str, chat: int, severity: str
) -> None:
    server.send(firing(alertname=f"Chat{chat}{severity}", app=app, severity=severity))
    (message,) = chats.heard(f"Chat{chat}{severity}")
    assert message.chat == chat


@pytest.mark.e2e
def test_critical_alerts_are_told_of_sooner(chats: Chats, tmp_path: Path) -> None:
    with alertmanager(tmp_path, chats, Options(chat_id=5)) as server:
        server.send(firing(alertname="Later", severity="warning"), firing(alertname="Sooner", severity="critical"))
        (later,), (sooner,) = chats.heard("Later"), chats.heard("Sooner")
        assert chats.messages.index(sooner) < chats.messages.index(later)


@pytest.mark.e2e
def test_critical_alerts_are_told_of_again_each_hour_and_warnings_are_not(chats: Chats, tmp_path: Path) -> None:
    with alertmanager(tmp_path, chats, Options(chat_id=5), times=3600) as server:
        server.send(firing(alertname="Once", severity="warning"), firing(alertname="Hourly", severity="critical"))
        chats.heard("Hourly", times=3)
        assert len(chats.heard("Once")) == 1


@pytest.mark.e2e
def test_alerts_of_the_same_kind_env_and_app_are_one_message(server: Alertmanager, chats: Chats) -> None:
    labels = [{"app": app, "env": env, "name": name} for app in "ab" for env in ("prod", "dev") for name in "xyz"]
    server.send(*(firing(alertname="Grouped", severity="warning", **one) for one in labels))
    messages = chats.heard("Grouped", times=4)
    assert len(messages) == 4
    for message in messages:
        assert "3 firing" in message.text


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"alertname": "ActionBudgetBurnsFast"}, {"alertname": "ActionBudgetBurnsSlowly"}),
        ({"alertname": "HttpBudgetBurnsFast"}, {"alertname": "HttpBudgetBurnsSlowly"}),
        ({"alertname": "ActionSlow", "name": "x_task"}, {"alertname": "ActionSlow", "name": "x_task"}),
        ({"alertname": "TargetDown", "instance": "10.0.0.1:8000"}, {"alertname": "TaskStopped", "name": "x_task"}),
        ({"alertname": "TargetDown", "instance": "10.0.0.1:8000"}, {"alertname": "HandlerTrafficVanished"}),
    ],
    ids=lambda labels: labels["alertname"],
)
def test_what_follows_from_another_alert_is_told_of_only_when_that_is_over(
    server: Alertmanager, chats: Chats, source: dict[str, Any], target: dict[str, Any]
) -> None:
    app = f"{source['alertname']}_{target['alertname']}"
    cause = firing(**source, app=app, env="prod", severity="critical")
    effect, elsewhere = (firing(**target, app=app, env=env, severity="warning") for env in ("prod", "dev"))
    server.send(cause)
    chats.heard("CRITICAL", f"app={app} env=prod")
    server.send(effect, elsewhere)
    chats.heard("WARNING", f"app={app} env=dev")
    assert not chats.said("WARNING", f"app={app} env=prod")
    server.send(resolved(cause))
    chats.heard("WARNING", target["alertname"], f"app={app} env=prod")
