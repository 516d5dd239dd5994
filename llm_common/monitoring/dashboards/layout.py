"""Dashboards as a whole: rows on Grafana's grid, variables, links to one another, and the text that is exported.

What others may refer to stays the same from export to export: a dashboard's ``uid``, a panel's ``id`` (the row's number
and the place in it), and the order of everything.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from llm_common.catalog import Metric
from llm_common.monitoring.dashboards.panels import DATASOURCE, DATASOURCE_VARIABLE, Panel
from llm_common.monitoring.promql import RECORDINGS, Match, labels_of, like, series

TAG = "llm_common"
HTTP_UID, ACTIONS_UID = "llm-common-http", "llm-common-actions"
WIDTH = 24
"""Columns of Grafana's grid."""
IDS_PER_ROW = 100

EVERYTHING = ".*"
"""What a variable stands for where all is selected; cheaper than naming each value."""


def chosen(label: str) -> Match:
    """Return what matches the values that are selected in the variable called like the label."""
    return like(f"${label}")


class Row(NamedTuple):
    """A row of panels under a title, which a click folds and unfolds."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = True


class Variable(NamedTuple):
    """A variable called like a label, with that label's values, of which any may be selected."""

    label: str
    title: str
    description: str
    within: tuple[str, ...] = ()
    """The variables, also called like labels, whose selection narrows what there is."""

    def build(self, metric: Metric, recorded: bool) -> dashboard.QueryVariable:
        """Return the variable, filled from the series of ``metric``."""
        if self.label not in labels_of(metric):
            raise ValueError(f"{metric.name} has no label {self.label}; it has {', '.join(metric.labels)}")
        asked = {label: chosen(label) for label in self.within}
        selector = RECORDINGS[metric.name, ""].series(**asked) if recorded else series(metric, **asked)
        return (
            dashboard.QueryVariable(self.label)
            .label(self.title)
            .description(self.description)
            .datasource(DATASOURCE)
            .query(f"label_values({selector}, {self.label})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
            .multi(True)
            .include_all(True)
            .all_value(EVERYTHING)
            .current(VariableOption(text="All", value="$__all"))
        )


def address(uid: str, *kept: str, **values: str) -> str:
    """Return the address of a dashboard for a link in a row of a table.

    It keeps the time and the variables ``kept``, and sets the variables in ``values`` to fields of the row.
    """
    set_to = "".join(f"&var-{name}=${{__data.fields.{field}:percentencode}}" for name, field in values.items())
    return f"/d/{quote(uid)}?${{__url_time_range}}{''.join(f'&${{{name}:queryparam}}' for name in kept)}{set_to}"


def dashboard_text(
    uid: str,
    title: str,
    description: str,
    variables: Iterable[dashboard.QueryVariable],
    rows: Iterable[Row],
    other: tuple[str, str],
) -> str:
    """Return a dashboard as JSON; ``other`` is the uid and the title of the one that it links to."""
    other_uid, other_title = other
    link = dashboard.DashboardLink(other_title).type(DashboardLinkType.LINK).url(f"/d/{other_uid}").icon("dashboard")
    datasource = (
        dashboard.DatasourceVariable(DATASOURCE_VARIABLE)
        .label("Data source")
        .description("The Prometheus, or what answers like one, that has the metrics.")
        .type("prometheus")
    )
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(link.tooltip(f"{other_title}, for the same time and selection").include_vars(True).keep_time(True))
        .with_variable(datasource)
    )
    for variable in variables:
        builder.with_variable(variable)
    _arrange(builder, rows)
    content = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    for variable in content["templating"]["list"]:
        for name in ("auto", "auto_count", "auto_min"):  # of intervals; the SDK writes them into all kinds
            del variable[name]
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _arrange(builder: dashboard.Dashboard, rows: Iterable[Row]) -> None:
    """Put the rows below one another. Panels of a folded row are its own; those of an unfolded one follow it."""
    y = 0
    for number, row in enumerate(rows, 1):
        first_id = number * IDS_PER_ROW
        place = GridPos(h=1, w=WIDTH, x=0, y=y)
        header = dashboard.Row(row.title).collapsed(row.collapsed).id(first_id).grid_pos(place)
        placed, below = _placed(row.panels, first_id, y + 1)
        for panel in placed if row.collapsed else ():
            header.with_panel(panel)
        builder.with_row(header)
        for panel in () if row.collapsed else placed:
            builder.with_panel(panel)
        y = y + 1 if row.collapsed else below


def _placed(panels: Iterable[Panel], first_id: int, y: int) -> tuple[list[Panel], int]:
    """Return the panels from left to right and from ``y`` downwards, and the first line below them."""
    x, height, placed = 0, 0, []
    for number, panel in enumerate(panels, 1):
        size = panel.build().grid_pos or GridPos()
        if x + size.w > WIDTH:
            x, y, height = 0, y + height, 0
        placed.append(panel.id(first_id + number).grid_pos(GridPos(h=size.h, w=size.w, x=x, y=y)))
        x, height = x + size.w, max(height, size.h)
    return placed, y + height
