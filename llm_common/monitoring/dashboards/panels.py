"""Panels in one style: what each kind looks like, whatever it shows.

Every panel says in its description what it shows, and has a unit and a text for where there is nothing to show.
"""

from collections.abc import Iterable, Mapping
from string import ascii_uppercase
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel

DATASOURCE_VARIABLE = "datasource"
DATASOURCE = DataSourceRef(type_val="prometheus", uid=f"${{{DATASOURCE_VARIABLE}}}")
MIN_INTERVAL = "1m"
"""No finer than rules are usually evaluated and targets scraped."""
NOTHING = "nothing in this time"
"""What a panel says where there is nothing to show."""

SECONDS, SHARE, COUNT, BYTES_RATE, BYTES = "s", "percentunit", "short", "Bps", "decbytes"
"""Grafana's units, of which a share is between 0 and 1."""

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"


class Query(NamedTuple):
    """What a panel asks, and what it calls the answer: text with ``{{label}}`` in it."""

    expression: str
    legend: str


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expression)
        .legend_format(query.legend)
        .editor_mode(QueryEditorMode.CODE)
        .datasource(DATASOURCE)
        .ref_id(letter)
    )


def _targets(queries: Iterable[Query]) -> list[Builder[Dataquery]]:
    return [_target(query, letter).range() for query, letter in zip(queries, ascii_uppercase, strict=False)]


def _steps(*steps: Threshold) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(list(steps))


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limit: float | None = None,
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    span: int = 8,
) -> timeseries.Panel:
    """Return lines over time, with a dashed line at ``limit``.

    ``colors`` has colours by the names of lines, or by a pattern ``/…/``, whose lines are given shades of the colour.
    """
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    style = kinds.GraphThresholdsStyleMode.OFF if limit is None else kinds.GraphThresholdsStyleMode.DASHED
    stacking = kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .no_value(NOTHING)
        .datasource(DATASOURCE)
        .interval(MIN_INTERVAL)
        .targets(_targets(queries))
        .legend(legend.placement(kinds.LegendPlacement.BOTTOM).calcs(["mean", "max"]))
        .tooltip(tooltip)
        .thresholds(_steps(Threshold(None, GREEN), *([] if limit is None else [Threshold(limit, RED)])))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(kinds.VisibilityMode.AUTO)  # a task that runs now and then is a point without neighbours
        .height(9)
        .span(span)
    )
    for name, color in (colors or {}).items():
        pattern = name.startswith("/")
        mode = FieldColorModeId.SHADES if pattern else FieldColorModeId.FIXED
        override = panel.override_by_regexp if pattern else panel.override_by_name
        override(name, [DynamicConfigValue("color", {"mode": mode, "fixedColor": color})])
    return panel


def number(title: str, description: str, unit: str, expression: str) -> stat.Panel:
    """Return the last value as a large number above its line."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .min(0)
        .no_value(NOTHING)
        .datasource(DATASOURCE)
        .interval(MIN_INTERVAL)
        .targets(_targets([Query(expression, title)]))
        .thresholds(_steps(Threshold(None, BLUE)))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .text_mode(kinds.BigValueTextMode.VALUE)
        .height(4)
        .span(6)
    )


def durations(title: str, description: str, buckets: str) -> heatmap.Panel:
    """Return how durations are spread: ``buckets`` is the rate of a histogram's buckets by ``le``."""
    query = _target(Query(buckets, "{{le}}"), "A").range().format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .unit(SECONDS)
        .no_value(NOTHING)
        .datasource(DATASOURCE)
        .interval(MIN_INTERVAL)
        .max_data_points(100)  # cells wide enough to be seen
        .with_target(query)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(SECONDS).axis_placement(kinds.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit(COUNT))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(kinds.HeatmapCellLayout.AUTO).value("per second"))
        .mode(kinds.TooltipDisplayMode.SINGLE)
        .show_y_histogram()
        .height(9)
        .span(8)
    )


class Column(NamedTuple):
    """A column of numbers: its title, its unit and what is asked for it."""

    title: str
    unit: str
    expression: str


class Link(NamedTuple):
    """Where a row leads to: the title, and the address with ``${__data.fields…}`` in it."""

    title: str
    url: str


def ranking(
    title: str, description: str, labels: Mapping[str, str], *columns: Column, links: Iterable[Link]
) -> table.Panel:
    """Return a table with a row for each combination of ``labels`` (label to title), sorted by the first column.

    The first label's cells are ``links``.
    """
    fields = {f"Value #{letter}": column for letter, column in zip(ascii_uppercase, columns, strict=False)}
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .unit(columns[0].unit)
        .no_value(NOTHING)
        .datasource(DATASOURCE)
        .targets(
            [
                _target(Query(column.expression, column.title), letter).instant().format(PromQueryFormat.TABLE)
                for letter, column in zip(ascii_uppercase, columns, strict=False)
            ]
        )
        .with_transformation(DataTransformerConfig("merge", options={}))
        .with_transformation(DataTransformerConfig("organize", options=_order([*labels, *fields])))
        .sort_by([common.TableSortByFieldState().display_name(columns[0].title).desc(True)])
        .height(10)
        .span(12)
    )
    for label, name in labels.items():
        panel.override_by_name(label, [DynamicConfigValue("displayName", name)])
    leading = [{"title": link.title, "url": link.url} for link in links]
    panel.override_by_name(next(iter(labels)), [DynamicConfigValue("links", leading)])
    for field, column in fields.items():
        shown = [DynamicConfigValue("displayName", column.title), DynamicConfigValue("unit", column.unit)]
        panel.override_by_name(field, shown)
    return panel


def _order(fields: Iterable[str]) -> dict[str, Any]:
    """Return the options of the transformation that arranges columns; the time is the same in each row."""
    return {
        "excludeByName": {"Time": True},
        "indexByName": {field: place for place, field in enumerate(fields)},
        "renameByName": {},
    }
