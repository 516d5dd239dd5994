"""From a failure to the message that it is over, on the real servers: the demo, Prometheus, Alertmanager, a Bot API."""

import json
from pathlib import Path

import pytest

from alerting import alertmanager, hurried_rules
from llm_common.monitoring.options import Options, Thresholds
from llm_common.monitoring.rules import alert_rules_file, recording_rules_file
from servers import demo, program, scraping
from telegram_chat import telegram_chats

pytestmark = [pytest.mark.e2e, pytest.mark.once]

CHAT = -1001234567890
# The demo has some failures at all times. This is more than they are, and less than those of an outage.
OPTIONS = Options(
    chat_id=CHAT, thresholds=Thresholds(action_error_share=0.8), runbooks="https://docs.example/llm_common"
)


def test_an_outage_reaches_the_chat_and_so_does_its_end(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/recording.yml").write_text(hurried_rules(recording_rules_file()))
    (tmp_path / "rules/alerts.yml").write_text(hurried_rules(alert_rules_file(OPTIONS)))
    with telegram_chats() as chats, alertmanager(tmp_path, chats, OPTIONS) as server:
        config = {
            "global": {"evaluation_interval": "500ms"},
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [server.address]}]}]},
        }
        besides = "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())
        with (
            demo("--outage", "20") as target,
            scraping(program("prometheus"), target, tmp_path, rules=Path("rules/*.yml"), config_end=besides),
        ):
            first, *_ = chats.heard("WARNING ActionErrorShareHigh", "name=question_handler", seconds=60)
            assert first.chat == CHAT
            _, _, *lines = first.text.splitlines()
            at = lines.index("🔴 app=demo_bot env=preprod name=question_handler")
            assert lines[at + 1] == "demo_bot (preprod): question_handler fails too often"
            assert lines[at + 3] == "Runbook"
            assert first.links[0] == "https://docs.example/llm_common/runbooks/#actionerrorsharehigh"
            # Of the actions in that message some may recover before others.
            chats.heard("ActionErrorShareHigh", "✅ app=demo_bot env=preprod name=question_handler\n", seconds=60)
            chats.heard("RESOLVED ActionErrorShareHigh\n0 firing", seconds=60)
            # What is alone in its group is told of twice: when it fires, and when that is over.
            chats.heard("RESOLVED DependencyDown", seconds=60)
            assert [one.text.splitlines()[0] for one in chats.said("DependencyDown", "app_type=llm")] == [
                "🔥 CRITICAL DependencyDown",
                "✅ RESOLVED DependencyDown",
            ]
