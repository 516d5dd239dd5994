"""Draws what the real servers show of the demo: ``make pictures``.

The demo runs with an outage of its model; a Prometheus scrapes it and evaluates the exported rules, in a hurry; an
Alertmanager sends what rings to a Bot API on loopback. Drawn are a message that the chat gets, and the first row of
each dashboard, from the answers to the queries of its panels.
"""

import json
import re
import tempfile
import textwrap
import time
from collections.abc import Iterator
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

from alerting import alertmanager, hurried_rules
from exported import Panel, dashboards, filled, panels
from llm_common.monitoring.options import Options, Thresholds
from llm_common.monitoring.rules import alert_rules_file, recording_rules_file
from servers import Api, demo, program, scraping
from telegram_chat import telegram_chats

DOCS = Path(__file__).parents[1] / "docs"
OUTAGE, SECONDS = 20, 60
OPTIONS = Options(chat_id=-1001234567890, thresholds=Thresholds(action_error_share=0.8))
ALL = {"env": ".*", "app": ".*", "app_type": ".*", "resource": ".*", "name": ".*"}
COLOURS = ("#3f51b5", "#e53935", "#43a047", "#fb8c00", "#8e24aa", "#00897b", "#6d4c41", "#546e7a", "#c0ca33", "#d81b60")
WIDTH = 720


def text(x: float, y: float, content: str, **style: Any) -> str:
    """Return a line of text."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(content)}</text>'


def svg(width: float, height: float, parts: list[str]) -> str:
    """Return a whole picture."""
    size = f'viewBox="0 0 {width:g} {height:g}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([start, *parts, "</svg>\n"])


def message(lines: list[str]) -> str:
    """Return a message as a bubble of a chat, drawn as wide as a phone's screen."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, 48) or [""]]
    height = 18 * len(wrapped) + 24
    parts = [
        f'<rect width="360" height="{height + 20}" rx="8" fill="#c9dcc0"/>',
        f'<rect x="10" y="10" width="340" height="{height}" rx="12" fill="#ffffff"/>',
    ]
    for number, line in enumerate(wrapped):
        weight = "bold" if number == 0 else "normal"
        parts.append(text(22, 34 + 18 * number, line, font_weight=weight, fill="#111111"))
    return svg(360, height + 20, parts)


def shown(value: float, unit: str) -> str:
    """Return a number as a panel shows it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    return f"{value:.3g}/s"


def stat(panel: Panel, api: Api, moment: float, left: float, top: float, width: float) -> list[str]:
    """Return a panel that shows one number."""
    (found,) = api("query", query=filled(panel["targets"][0]["expr"], ALL), time=moment)["result"]
    value = shown(float(found["value"][1]), panel["fieldConfig"]["defaults"]["unit"])
    return [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="64" rx="4" fill="#ffffff" stroke="#d0d3dc"/>',
        text(left + 8, top + 18, panel["title"], fill="#444444"),
        text(left + width / 2, top + 50, value, font_size=22, text_anchor="middle", fill="#1a237e"),
    ]


def lines_of(panel: Panel, api: Api, start: float, end: float) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Yield the title and the points of each line of a graph."""
    for target in panel["targets"]:
        for found in api("query_range", query=filled(target["expr"], ALL), start=start, end=end, step=1)["result"]:
            title = target["legendFormat"]
            for label, value in found["metric"].items():
                title = title.replace(f"{{{{{label}}}}}", value)
            yield title, [(at, float(value)) for at, value in found["values"] if value != "NaN"]


GRAFANA = {"red": "#e53935", "green": "#43a047", "blue": "#3f51b5", "yellow": "#f9a825", "text": "#546e7a"}


def colour_of(title: str, panel: Panel, number: int) -> str:
    """Return the colour that a panel gives the line of this title, or that of its number."""
    for one in panel["fieldConfig"]["overrides"]:
        wanted, (given,) = one["matcher"]["options"], one["properties"]
        if title == wanted or (wanted.startswith("/") and re.search(wanted.strip("/"), title)):
            return GRAFANA[given["value"]["fixedColor"]]
    return COLOURS[number % len(COLOURS)]


def graph(panel: Panel, api: Api, start: float, end: float, left: float, top: float, width: float) -> list[str]:
    """Return a panel that shows lines over time."""
    found = list(lines_of(panel, api, start, end))
    highest = max(value for _, points in found for _, value in points) or 1.0
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="190" rx="4" fill="#ffffff" stroke="#d0d3dc"/>',
        text(left + 8, top + 18, panel["title"], fill="#444444"),
        text(
            left + 8, top + 36, shown(highest, panel["fieldConfig"]["defaults"]["unit"]), font_size=10, fill="#777777"
        ),
        *(f'<path d="M{left + 8:g} {top + at}h{width - 16:g}" stroke="#e5e7ee"/>' for at in (40, 140)),
    ]
    x, y = left + 8, top + 158
    for number, (title, points) in enumerate(found):
        colour = colour_of(title, panel, number)
        placed = " ".join(
            f"{left + 8 + (at - start) / (end - start) * (width - 16):.1f},{top + 140 - 100 * value / highest:.1f}"
            for at, value in points
        )
        parts.append(f'<polyline points="{placed}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if x + 7 * len(title) > left + width - 8:
            x, y = left + 8, y + 14
        parts.append(text(x, y, title, font_size=10, fill=colour))
        x += 7 * len(title) + 8
    return parts


def dashboard(content: dict[str, Any], api: Api, start: float, end: float) -> str:
    """Return the first row of a dashboard."""
    first = [panel for row, panel in panels(content) if row == "Overview"]
    stats = [panel for panel in first if panel["type"] == "stat"]
    graphs = [panel for panel in first if panel["type"] == "timeseries"]
    parts = [text(10, 24, content["title"], font_size=16, font_weight="bold", fill="#222222")]
    for top, row in ((38, stats), (110, graphs)):
        width = (WIDTH - 20 - 8 * (len(row) - 1)) / len(row)
        for number, panel in zip(count(), row):
            left = 10 + (width + 8) * number
            if row is stats:
                parts += stat(panel, api, end, left, top, width)
            else:
                parts += graph(panel, api, start, end, left, top, width)
    return svg(WIDTH, 310, [f'<rect width="{WIDTH}" height="310" rx="6" fill="#f4f5f5"/>', *parts])


def pictures(directory: Path) -> dict[str, str]:
    """Run it all, and return what is in each file."""
    (directory / "rules").mkdir()
    (directory / "rules/recording.yml").write_text(hurried_rules(recording_rules_file()))
    (directory / "rules/alerts.yml").write_text(hurried_rules(alert_rules_file(OPTIONS)))
    with telegram_chats() as chats, alertmanager(directory, chats, OPTIONS) as server:
        config = {
            "global": {"evaluation_interval": "500ms"},
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [server.address]}]}]},
        }
        besides = "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())
        with (
            demo("--outage", str(OUTAGE)) as target,
            scraping(program("prometheus"), target, directory, rules=Path("rules/*.yml"), config_end=besides) as (
                _,
                api,
            ),
        ):
            begun = time.time()
            first, *_ = chats.heard("CRITICAL DependencyDown", seconds=SECONDS)
            time.sleep(max(0.0, begun + SECONDS - time.time()))
            drawn = {
                f"dashboard-{uid.removeprefix('llm-common-')}.svg": dashboard(content, api, begun + 15, time.time())
                for uid, content in dashboards().items()
            }
    return {"alert.svg": message(first.text.splitlines()), **drawn}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures(Path(folder)).items():
            (DOCS / name).write_text(picture, encoding="utf-8")
