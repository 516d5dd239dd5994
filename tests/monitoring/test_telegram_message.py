"""The message about alerts, as a real Alertmanager sends it to Telegram."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from alerting import Alertmanager, alertmanager, firing, resolved
from llm_common.monitoring.options import Options
from telegram_chat import Chats, Message, Refused, read, telegram_chats

pytestmark = [pytest.mark.e2e, pytest.mark.once]

CHAT = -1001234567890
TURNING = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Characters that change the direction of writing."""
LABELS = ["app", "env", "name", "app_type", "resource", "instance"]
"""The labels that are shown, in their order."""


class Desk(NamedTuple):
    """Who tells of alerts, and where that is heard."""

    alertmanager: Alertmanager
    chats: Chats


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with (
        telegram_chats() as chats,
        alertmanager(tmp_path_factory.mktemp("alertmanager"), chats, Options(chat_id=CHAT)) as server,
    ):
        yield Desk(server, chats)


_numbers = count(1)


@pytest.fixture
def name() -> str:
    """Return the name of an alert that no other test has."""
    return f"Alert{next(_numbers):03}"


def critical(name: str, annotations: dict[str, str] | None = None, /, **labels: str) -> dict[str, Any]:
    return firing(annotations, alertname=name, severity="critical", app="shop_bot", env="prod", **labels)


def test_an_alert_is_one_message_with_app_env_action_and_what_is_wrong_and_so_is_its_end(desk: Desk, name: str) -> None:
    annotations = {
        "summary": "12 % of the runs fail",
        "description": "menu_handler failed in 12 % of its runs within 5 minutes; at most 5 % may.",
        "runbook_url": "https://docs.example/runbooks?a=1&b=2#ActionErrorShareHigh",
    }
    alert = critical(name, annotations, action="unknown", name="menu_handler")
    desk.alertmanager.send(alert)
    (message,) = desk.chats.heard(name)
    assert message.chat == CHAT
    told = "app=shop_bot env=prod name=menu_handler\n12 % of the runs fail"
    assert message.text == (
        f"🔥 CRITICAL {name}\n1 firing, 0 resolved\n\n🔴 {told}\n{annotations['description']}\nRunbook"
    )
    assert message.links == (annotations["runbook_url"],)
    desk.alertmanager.send(resolved(alert))
    _, end = desk.chats.heard(name, times=2)
    assert end.text == f"✅ RESOLVED {name}\n0 firing, 1 resolved\n\n✅ {told}"
    assert end.links == ()


def test_what_fires_comes_before_what_is_resolved_in_the_same_message(desk: Desk, name: str) -> None:
    one, other = critical(name, name="a_handler"), critical(name, name="b_handler")
    desk.alertmanager.send(one, other)
    desk.chats.heard(name)
    desk.alertmanager.send(resolved(one))
    _, second = desk.chats.heard(name, times=2)
    assert second.text == (
        f"🔥 CRITICAL {name}\n1 firing, 1 resolved"
        "\n\n🔴 app=shop_bot env=prod name=b_handler"
        "\n\n✅ app=shop_bot env=prod name=a_handler"
    )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"severity": "warning"}, "⚠️ WARNING {}\n1 firing, 0 resolved\n\n🔴"),
        ({"severity": "<info>", "app_type": "llm"}, "⚠️ <INFO> {}\n1 firing, 0 resolved\n\n🔴 app_type=llm"),
        ({"resource": "v1/chat"}, "⚠️ ALERT {}\n1 firing, 0 resolved\n\n🔴 resource=v1/chat"),
    ],
)
def test_what_an_alert_lacks_is_left_out(desk: Desk, name: str, labels: dict[str, str], text: str) -> None:
    desk.alertmanager.send(firing(alertname=name, **labels))
    (message,) = desk.chats.heard(name)
    assert message.text == text.format(name)


def test_an_alert_without_a_name_is_told_of_too(desk: Desk, name: str) -> None:
    desk.alertmanager.send(firing(instance=name))
    (message,) = desk.chats.heard(name)
    assert message.text == f"⚠️ ALERT \n1 firing, 0 resolved\n\n🔴 instance={name}"


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", 'https://docs.example/" onclick="x', "https://docs.example/" + "x" * 4000, "see docs", ""],
)
def test_only_an_address_becomes_a_link(desk: Desk, name: str, link: str) -> None:
    desk.alertmanager.send(critical(name, {"runbook_url": link, "summary": "It fails."}))
    (message,) = desk.chats.heard(name)
    assert (message.text.splitlines()[-1], message.links) == ("It fails.", ())


def test_of_300_alerts_ten_are_listed_and_the_others_counted(desk: Desk, name: str) -> None:
    desk.alertmanager.send(*(firing(alertname=name, name=f"action_{number:03}_task") for number in range(300)))
    (message,) = desk.chats.heard(name)
    assert message.text.startswith(f"⚠️ ALERT {name}\n300 firing, 0 resolved\n\n")
    assert [line.split("name=")[1] for line in message.text.splitlines() if "name=" in line] == [
        f"action_{number:03}_task" for number in range(10)
    ]
    assert message.text.endswith("\n\n… and 290 more")


WORST = {
    "tags": "<b>&\"'",
    "quotes": "'\"",
    "entities": "&amp;",
    "plus": "+",
    "emoji": "🤦🏽‍♀️",
    "right to left": "\u202eשלום\u2066",
    "lines": "\r\n\x00\t\u2028",
    "combining": "á̂",
    "spaces": " ",
    "latin": "x",
}


def shown(value: str, limit: int) -> str:
    """Return how a value is shown: without turns and breaks, and cut."""
    blank = "".join(
        "\0" if ord(one) in TURNING or unicodedata.category(one)[0] == "Z" or unicodedata.category(one) == "Cc" else one
        for one in value
    )
    clean = re.sub("\0+", " ", blank)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def assert_whole(message: Message, alerts: list[dict[str, Any]]) -> None:
    """Assert that a message is complete, keeps its size, and that nothing in it turns the rest around."""
    assert len(message.html.encode()) <= 4096  # Alertmanager would have cut what has more characters
    assert not TURNING & set(map(ord, message.text))
    assert {one for one in message.text if unicodedata.category(one) == "Cc"} == {"\n"}
    head, *blocks = message.text.split("\n\n")
    state, counts = head.split("\n")
    assert state.endswith(f" {shown(alerts[0]['labels']['alertname'], 60)}")
    assert counts == f"{len(alerts)} firing, 0 resolved"
    more = re.fullmatch(r"… and (\d+) more", blocks[-1])
    listed = blocks[:-1] if more else blocks
    assert len(listed) + int(more[1] if more else 0) == len(alerts)
    told = {
        "🔴" + "".join(f" {label}={shown(one['labels'][label], 50)}" for label in LABELS if one["labels"].get(label))
        for one in alerts
    }
    assert listed
    assert {block.split("\n")[0] for block in listed} <= told


WORST = {
    "tags": "<b>&\"'",
    "quotes": "'\"",
    "entities": "&amp;",
    "plus": "+",
    "emoji": "🤦🏽\u200d♀️",
    "right to left": "\u202eשלום\u2066",
    "lines": "\r\n\x00\t\u2028",
    "accents": "a\u0301\u0302",
    "spaces": " ",
    "latin": "x",
}


@pytest.mark.parametrize("alerts", [1, 12])
def test_the_worst_labels_and_annotations_arrive(desk: Desk, name: str, alerts: int) -> None:
    groups = {}
    for kind, unit in WORST.items():
        long = (unit * 4000)[:4000]
        annotations = {"summary": long, "description": long, "runbook_url": f"https://docs.example/?{'&' * 250}"}
        labels = {**dict.fromkeys([*LABELS, "severity"], long), "alertname": f"{name} {kind} {long}"}
        groups[kind] = [firing(annotations, **labels, number=str(number)) for number in range(alerts)]
    desk.alertmanager.send(*(one for group in groups.values() for one in group))
    for kind, group in groups.items():
        (message,) = desk.chats.heard(f"{name} {kind} ")
        assert_whole(message, group)


texts = st.text(
    st.sampled_from("<>&\"'+;/= \n\0\u202e\u2066א🔴…") | st.characters(exclude_categories=["Cs"]), max_size=400
)
alerts = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["name", "app_type", "resource", "instance", "severity"], texts)
)
annotations = st.fixed_dictionaries({}, optional=dict.fromkeys(["summary", "description", "runbook_url"], texts))
groups = st.tuples(texts, texts, texts, st.lists(st.tuples(annotations, alerts), min_size=1, max_size=12))


# Nothing is to be learnt from a smaller example: what was refused once, Alertmanager sends again and again.
@settings(
    phases=[Phase.generate],
    max_examples=5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(groups, min_size=1, max_size=20))
def test_whatever_labels_and_annotations_say_arrives(desk: Desk, drawn: list[Any]) -> None:
    batch = {
        (mark := f"Drawn{next(_numbers)}!"): [
            firing(annotations, **labels, alertname=mark + name, app=app, env=env, number=str(number))
            for number, (annotations, labels) in enumerate(members)
        ]
        for name, app, env, members in drawn
    }
    desk.alertmanager.send(*(one for group in batch.values() for one in group))
    for mark, group in batch.items():
        (message,) = desk.chats.heard(mark)
        assert_whole(message, group)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "<b> </b>",
        "<b>bold",
        "bold</b>",
        "<b><i>both</b></i>",
        "<p>paragraph</p>",
        '<b class="x">bold</b>',
        "<a>nowhere</a>",
        '<a href="https://docs.example/?a&b">link</a>',
        '<b href="https://docs.example/">bold</b>',
        "<br/>",
        "1 < 2",
        "1 > 2",
        "tea & cake",
        "&nbsp;",
        "&#39",
        "&l",
        "<code><b>bold</b></code>",
        "x" * 4097,
        "🔴" * 2049,
        "&amp;" * 820,
    ],
)
def test_the_stand_in_for_telegram_refuses_what_telegram_refuses_or_shows_otherwise(text: str) -> None:
    with pytest.raises(Refused):
        read(CHAT, text)


def test_the_stand_in_for_telegram_reads_what_telegram_reads() -> None:
    text = '<b>1 &lt; 2</b>\n<a href="https://docs.example/?a&amp;b">&quot;&#39;&#x26;</a>'
    assert read(CHAT, text) == Message(CHAT, text, "1 < 2\n\"'&", ("https://docs.example/?a&b",))
