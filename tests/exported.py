"""Reading an exported dashboard back, and filling in what Grafana fills in."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.options import Options

Dashboard = dict[str, Any]
Panel = dict[str, Any]


def dashboards(options: Options | None = None) -> dict[str, Dashboard]:
    """Return the dashboards by their uid."""
    contents = map(json.loads, dashboard_files(options or Options()).values())
    return {content["uid"]: content for content in contents}


def panels(dashboard: Dashboard) -> Iterator[tuple[str, Panel]]:
    """Yield each panel with the title of its row, wherever the row keeps it."""
    row = ""
    for one in dashboard["panels"]:
        if one["type"] == "row":
            row = one["title"]
            yield from ((row, panel) for panel in one["panels"])
        else:
            yield row, one


def targets(dashboard: Dashboard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each query of each panel, with words for where it is."""
    for row, panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"{dashboard['title']} / {row} / {panel['title']} / {target['refId']}", target


def variables(dashboard: Dashboard) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in dashboard["templating"]["list"]}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return ``text`` with the variables of a dashboard, and those that Grafana itself has, filled in."""
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"${name}", values[name])
    return text
