"""The options of an export, from a pyproject.toml and from the command line."""

from pathlib import Path
from typing import Any

import pytest

from llm_common.errors import ConfigurationError
from llm_common.monitoring.configuration import configured
from llm_common.monitoring.options import Objectives, Options, Target, Thresholds
from llm_common.settings import Pyproject, resolve

pytestmark = pytest.mark.once


def pyproject(**table: Any) -> Pyproject:
    return Pyproject(Path("pyproject.toml"), {"monitoring": table})


def test_nothing_given_is_the_defaults() -> None:
    assert configured(None, {}) == Options()
    assert configured(pyproject(), {"targets": None, "chat_id": ""}) == Options()


def test_everything_can_stand_in_the_file() -> None:
    table = {
        "targets": ["shop:8000,app=shop_bot,env=prod", "[::1]:9000"],
        "thresholds": {"action_error_share": 0.1, "http_seconds": 2},
        "objectives": {"http": 0.999},
        "chat_id": -100123,
        "alertmanager": "0.25.0",
        "telegram_api": "http://127.0.0.1:8081/",
        "runbooks": "https://docs.example.org/llm_common/",
        "recording_rules": False,
    }
    assert configured(pyproject(**table), {}) == Options(
        targets=(Target("shop:8000", (("app", "shop_bot"), ("env", "prod"))), Target("[::1]:9000")),
        thresholds=Thresholds(action_error_share=0.1, http_seconds=2.0),
        objectives=Objectives(http=0.999),
        chat_id=-100123,
        alertmanager=(0, 25),
        telegram_api="http://127.0.0.1:8081",
        runbooks="https://docs.example.org/llm_common",
        recording_rules=False,
    )


def test_the_command_line_goes_before_the_file_number_by_number() -> None:
    found = configured(
        pyproject(thresholds={"action_error_share": 0.1, "http_seconds": 2}, chat_id=1),
        {"thresholds": ["http_seconds=4", " task_seconds = 60"], "chat_id": "-2", "targets": ["app:1"]},
    )
    assert found.thresholds == Thresholds(action_error_share=0.1, http_seconds=4.0, task_seconds=60.0)
    assert (found.chat_id, found.targets) == (-2, (Target("app:1"),))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": "app:1"}, r"accepted: a list such as"),
        ({"targets": ["app"]}, r"the option --target has 'app'; accepted: host:port"),
        ({"targets": ["app:1,env"]}, "accepted: host:port"),
        ({"targets": ["app:1,env="]}, "accepted: host:port"),
        ({"targets": ["http://app:1"]}, "accepted: host:port"),
        ({"targets": ["`app`:1"]}, "accepted: host:port"),
        ({"targets": ["app:1,env=\udcff"]}, "accepted: host:port"),
        ({"thresholds": ["action_error_shar=1"]}, "did you mean 'action_error_share'"),
        ({"thresholds": ["http_seconds"]}, "the option --threshold is .*; accepted: names with numbers"),
        ({"thresholds": ["http_seconds=soon"]}, "http_seconds='soon'; accepted: a number"),
        ({"thresholds": {"http_seconds": [1]}}, "accepted: a number"),
        ({"thresholds": {"http_seconds": True}}, "http_seconds=True; accepted: a number"),
        ({"thresholds": {"http_seconds": 10**400}}, "accepted: a number"),
        ({"objectives": ["http=99.5"]}, "the option --objective: .*http"),
        ({"chat_id": "@shop"}, "negative for a group"),
        ({"chat_id": True}, "negative for a group"),
        ({"chat_id": 0}, "negative for a group"),
        ({"chat_id": "9" * 20}, "negative for a group"),
        ({"chats": ["shop_bot=0"]}, "negative for a group"),
        ({"chats": ["=1"]}, "accepted: names of applications with chats"),
        ({"chats": ["\udcff=1"]}, "accepted: names of applications with chats"),
        ({"token_file": 1}, "accepted: the path of a file"),
        ({"token_file": "to\nken"}, "accepted: the path of a file"),
        ({"alertmanager": "new"}, "a version as text"),
        ({"alertmanager": 0.28}, "a version as text"),
        ({"alertmanager": "0.23"}, "since 0.24"),
        ({"runbooks": "docs"}, "accepted: an address"),
        ({"runbooks": "https://docs/{{nobody}}"}, "accepted: an address"),
        ({"telegram_api": 1}, "accepted: an address"),
        ({"telegram_api": "http://user:hunter2@127.0.0.1"}, "has credentials in it; leave them out"),
        ({"recording_rules": "no"}, "accepted: true or false"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_what_is_accepted(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        configured(None, given)


def test_an_application_has_one_chat() -> None:
    assert configured(None, {"chats": ["shop_bot=1", "shop_bot=2"]}).chats == (("shop_bot", 2),)


def test_an_unknown_setting_of_the_file_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match="unknown setting 'target'; did you mean 'targets'"):
        configured(pyproject(target=[]), {})
    with pytest.raises(ConfigurationError, match="must be a table"):
        configured(Pyproject(Path("pyproject.toml"), {"monitoring": 1}), {})


def test_the_settings_of_the_application_leave_the_table_alone() -> None:
    assert resolve({}, {}, pyproject(chat_id=1)).backends == ("prometheus",)
