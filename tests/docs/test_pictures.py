"""The pictures of the documentation are those that the command draws."""

import re
import runpy

import pytest

from exported import Dashboard, dashboards, panels
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from pages import ROOT, english, read

pytestmark = pytest.mark.once

PICTURES = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
DRAWN: dict[str, str] = PICTURES["drawings"]()


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_what_the_command_draws(name: str) -> None:
    assert read(ROOT / "docs" / name) == DRAWN[name]


def test_the_picture_of_the_demo_shows_what_the_demo_prints() -> None:
    shown, drawn = (words(svg) for svg in (read(ROOT / "docs" / "demo.svg"), PICTURES["terminal"](1)))
    assert "font-face" not in drawn
    assert {"action", "cancelled", "p95", "question_handler", "app_type", "{unknown}", "Metrics:"} <= shown
    assert {word for word in drawn if word.endswith(("_handler", "_llm_call", "_agent", "_task"))} <= shown


@pytest.mark.parametrize("content", dashboards().values(), ids=lambda content: content["title"])
def test_the_picture_of_a_dashboard_shows_its_first_row(content: Dashboard) -> None:
    shown = read(ROOT / "docs" / f"dashboard-{content['uid'].removeprefix('llm-common-')}.svg")
    assert f">{content['title']}<" in shown
    for title in [panel["title"] for row, panel in panels(content) if row == "Overview"]:
        assert f">{title}<" in shown


def test_the_picture_of_an_alert_shows_what_the_rule_says() -> None:
    (rule,) = (alert for alert in alerts(Options()) if alert.name == "DependencyDown")
    shown = words(read(ROOT / "docs" / "alert.svg"))
    assert {rule.severity.upper(), rule.name} <= shown
    assert {"app_type=llm", "Is", "it", "down,", "or", "the", "way", "to", "it?"} <= shown


def words(svg: str) -> set[str]:
    """Return the words that a picture shows."""
    return set(re.sub(r"<[^>]*>", " ", svg).replace("&#160;", " ").split())


def test_every_picture_is_shown_and_asks_for_nothing_from_outside() -> None:
    text = "".join(map(read, english()))
    for picture in ROOT.glob("docs/*.svg"):
        assert picture.name.endswith(".ru.svg") or f"]({picture.name})" in text
        assert not re.search(r"(?:href|src)=|url\((?!#)|@import|font-face", read(picture))
