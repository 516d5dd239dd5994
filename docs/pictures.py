"""Draws the pictures of the documentation: ``make pictures``.

A picture with words has one file for each language: the site takes NAME.ru.svg where a page in Russian shows NAME.svg.
"""

import io
import re
from html import escape
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console

from llm_common import action_tracking, configure, http_tracking
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import CATALOGUE, Kind
from llm_common.demo.run import Options, run_demo
from llm_common.dispatch import unconfigured
from llm_common.prometheus import render_metrics

HERE = Path(__file__).parent
WIDTH = 360
GAP = 26
LINE = 17

WAY = {
    "": [
        [('with action_tracking("menu_handler"):', ["the recorders of this name are looked up", "the clock is read"])],
        [("the block ends", ["the clock is read again", "ok, error or cancelled"])],
        [
            ("prometheus", ["one process:", "a list, which", "is folded"]),
            ("prometheus", ["several processes:", "mapped files"]),
            ("others", ["memory, yours,", "OpenTelemetry", "elsewhere →"]),
        ],
        [("GET /metrics", ["lists are folded, files are summed", "lines are filled into templates"])],
        [("Prometheus", ["keeps the series", "records rates, evaluates alerts each minute"])],
        [("Grafana", ["the dashboards"]), ("Alertmanager", ["a message in Telegram"])],
    ],
    ".ru": [
        [('with action_tracking("menu_handler"):', ["находятся рекордеры этого имени", "читаются часы"])],
        [("блок заканчивается", ["часы читаются ещё раз", "ok, error или cancelled"])],
        [
            ("prometheus", ["один процесс:", "список, который", "складывают"]),
            ("prometheus", ["несколько:", "отображённые", "в память файлы"]),
            ("другие", ["memory, ваш,", "OpenTelemetry", "дальше сами →"]),
        ],
        [("GET /metrics", ["списки складываются, файлы суммируются", "числа вписываются в шаблоны строк"])],
        [("Prometheus", ["хранит ряды", "раз в минуту считает скорости и алерты"])],
        [("Grafana", ["дашборды"]), ("Alertmanager", ["сообщение в Telegram"])],
    ],
}
"""The way of an action, for each language: rows of boxes, from the code to what people see."""


def box(left: float, top: float, width: float, height: float, title: str, lines: list[str]) -> str:
    """Return a box with its title and its lines in the middle."""
    middle = left + width / 2
    first = top + (height - LINE * len(lines)) / 2 + 3
    code = ' font-family="monospace"' if "(" in title or "/" in title else ""
    texts = [f'<text x="{middle:g}" y="{first:g}" font-weight="bold"{code}>{escape(title)}</text>']
    texts += [
        f'<text x="{middle:g}" y="{first + LINE * number:g}">{escape(line)}</text>'
        for number, line in enumerate(lines, start=1)
    ]
    rect = (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" fill="#e8eaf6" stroke="#3f51b5"/>'
    )
    return "\n".join([rect, *texts])


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return an arrow."""
    return (
        f'<path d="M{start[0]:g} {start[1]:g}L{end[0]:g} {end[1]:g}" stroke="#5c6bc0" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def way(rows: list[list[tuple[str, list[str]]]]) -> str:
    """Return the picture of the rows, each row below the one that leads to it."""
    parts, top, above = [], 6.0, list[tuple[float, float]]()
    for row in rows:
        width = (WIDTH - 12 - 8 * (len(row) - 1)) / len(row)
        height = 14 + LINE * (1 + max(len(lines) for _, lines in row))
        lefts = [6 + (width + 8) * number for number in range(len(row))]
        middles = [left + width / 2 for left in lefts]
        for start in above:
            ends = middles if len(above) == 1 else [start[0]]
            parts += [arrow(start, (end, top - 3)) for end in ends]
        parts += [box(left, top, width, height, *one) for left, one in zip(lefts, row, strict=True)]
        down = [not lines[-1].endswith("→") for _, lines in row]
        above = [(middle, top + height) for middle, goes in zip(middles, down, strict=True) if goes]
        top += height + GAP
    head = (
        '<marker id="head" markerWidth="8" markerHeight="8" refX="5" refY="4" orient="auto">'
        '<path d="M0 0L7 4L0 8z" fill="#5c6bc0"/></marker>'
    )
    size = f'width="{WIDTH}" height="{top - GAP + 6:g}" viewBox="0 0 {WIDTH} {top - GAP + 6:g}"'
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" '
        'text-anchor="middle" fill="#1a237e">'
    )
    return "\n".join([start, f"<defs>{head}</defs>", *parts, "</svg>\n"])


def terminal(seconds: float) -> str:
    """Return the picture of a terminal in which the demo ran for so long."""
    console = Console(record=True, width=100, file=io.StringIO())
    run_demo(Options(seconds=seconds, port=0, backends="prometheus"), console)
    return exported(console, "demo")


def scrape() -> str:
    """Return the picture of a terminal that shows what a scrape has of some actions and requests."""
    registry, names = CollectorRegistry(), [metric.name for metric in CATALOGUE if metric.kind is Kind.COUNTER]
    with unconfigured():
        configure(app="shop_bot", env="prod", backends=[PrometheusBackend(registry)])
        for number in range(120):
            with action_tracking("menu_handler") as tracker:
                tracker.size(3)
            with action_tracking("answer_llm_call") as tracker:
                tracker.to_fail("too slow") if number % 40 == 0 else None
            http_tracking("app_api", "/orders/42", "POST", 512, 201, 0.2, 128)
        text = render_metrics(registry=registry, names=names)[0].decode()
    console = Console(record=True, width=126, file=io.StringIO())
    console.print("$ curl -s localhost:8000/metrics | grep _total", highlight=False)
    for line in text.splitlines():
        if not line.startswith("#"):
            console.print(line, soft_wrap=False)
    return exported(console, "scrape")


def exported(console: Console, name: str) -> str:
    """Return the picture of what was printed, without fonts, which would be asked of another host."""
    svg = console.export_svg(title="" if name == "scrape" else "llm-common demo", unique_id=name)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def drawings() -> dict[str, str]:
    """Return what is in each file that is the same whenever it is drawn."""
    return {**{f"way{language}.svg": way(rows) for language, rows in WAY.items()}, "scrape.svg": scrape()}


if __name__ == "__main__":
    for name, text in {**drawings(), "demo.svg": terminal(30)}.items():
        (HERE / name).write_text(text, encoding="utf-8")
