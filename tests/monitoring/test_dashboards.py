"""What a reader of the dashboards relies on, whatever is on them."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest

from exported import Panel, dashboards, filled, panels, targets, variables
from llm_common.catalog import CATALOGUE, METRICS
from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.dashboards.layout import Variable
from llm_common.monitoring.options import Options, Thresholds
from llm_common.monitoring.promql import PARTS, RECORDINGS

pytestmark = pytest.mark.once

UIDS = {"llm-common-http", "llm-common-actions"}
OF_GRAFANA = {"__range", "__url_time_range"}

MODES = pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "raw"])


def everything(content: Any) -> list[str]:
    """Return every text in a dashboard."""
    if isinstance(content, dict):
        return [text for value in content.values() for text in everything(value)]
    if isinstance(content, list):
        return [text for value in content for text in everything(value)]
    return [content] if isinstance(content, str) else []


def places(panels: list[Panel]) -> set[tuple[int, int]]:
    """Return the cells of the grid that are taken; fails where two panels want the same one."""
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        wanted = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not wanted & taken, panel["title"]
        taken |= wanted
    return taken


def test_there_are_two_with_uids_that_stay() -> None:
    assert list(dashboard_files(Options())) == ["http.json", "actions.json"]
    assert {json.loads(text)["uid"] for text in dashboard_files(Options()).values()} == UIDS


@MODES
def test_the_same_options_give_the_same_text(recorded: bool) -> None:
    options = Options(recording_rules=recorded)
    assert dashboard_files(options) == dashboard_files(options)
    for text in dashboard_files(options).values():
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_ids_are_those_of_the_row_and_the_place_in_it() -> None:
    for dashboard in dashboards().values():
        rows = [one for one in dashboard["panels"] if one["type"] == "row"]
        assert [row["id"] for row in rows] == [100 * number for number in range(1, len(rows) + 1)]
        titles = [row["title"] for row in rows]
        numbers: dict[str, list[int]] = {}
        for row, panel in panels(dashboard):
            numbers.setdefault(row, []).append(panel["id"])
        for position, title in enumerate(titles, 1):
            assert numbers[title] == [100 * position + place for place in range(1, len(numbers[title]) + 1)]


def test_every_panel_has_a_title_a_description_a_unit_and_words_for_nothing() -> None:
    for dashboard in dashboards().values():
        assert dashboard["description"].endswith(".")
        for row, panel in panels(dashboard):
            assert panel["title"], row
            assert re.fullmatch(r"[A-Z].+\.", panel["description"]), panel["title"]
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["unit"], panel["title"]
            assert defaults["noValue"], panel["title"]


def test_panels_of_a_row_have_titles_of_their_own() -> None:
    for dashboard in dashboards().values():
        titles = [(row, panel["title"]) for row, panel in panels(dashboard)]
        assert len(titles) == len(set(titles))


def test_no_panels_overlap_and_each_row_fills_the_width() -> None:
    for dashboard in dashboards().values():
        unfolded = places(dashboard["panels"])
        assert {x for x, _ in unfolded} == set(range(24))
        assert len(unfolded) == 24 * (1 + max(y for _, y in unfolded)), "there is a gap"
        for row in dashboard["panels"]:
            if row["type"] == "row" and row["collapsed"]:
                taken = places(row["panels"])
                lines = {y for _, y in taken}
                assert min(lines) == row["gridPos"]["y"] + 1
                assert len(taken) == 24 * len(lines), f"there is a gap in {row['title']}"


def test_the_first_two_rows_are_unfolded_and_the_others_cost_nothing_until_they_are() -> None:
    for dashboard in dashboards().values():
        rows = [one for one in dashboard["panels"] if one["type"] == "row"]
        assert [row["collapsed"] for row in rows] == [False, False, *[True] * (len(rows) - 2)]
        assert all(bool(row["panels"]) == row["collapsed"] for row in rows)
        for above, below in pairwise(row for row in rows if row["collapsed"]):
            assert below["gridPos"]["y"] == above["gridPos"]["y"] + 1


@MODES
def test_each_variable_that_is_used_exists_and_each_that_exists_is_used(recorded: bool) -> None:
    for dashboard in dashboards(Options(recording_rules=recorded)).values():
        # Fields of a row, and variables that links to the other dashboard set, are no variables of this one.
        texts = [re.sub(r"\$\{__data\.fields\.\w+:percentencode\}", "", text) for text in everything(dashboard)]
        used = {name for text in texts for name in re.findall(r"\$\{?(\w+)", text)} - OF_GRAFANA
        assert used - {"__all"} == set(variables(dashboard))


def test_the_variables_are_those_that_were_promised() -> None:
    found = {uid: list(variables(dashboard)) for uid, dashboard in dashboards().items()}
    assert found["llm-common-http"] == ["datasource", "env", "app", "app_type", "resource"]
    assert found["llm-common-actions"] == ["datasource", "env", "app", "name"]
    for dashboard in dashboards().values():
        for name, variable in variables(dashboard).items():
            assert (variable.get("multi"), variable.get("includeAll")) == ((name != "datasource",) * 2)
            assert variable["label"]
            assert variable["description"].endswith(".")


def test_each_link_leads_to_a_dashboard_that_exists_and_sets_variables_that_it_has() -> None:
    every = dashboards()
    for uid, dashboard in every.items():
        (other,) = UIDS - {uid}
        (link,) = dashboard["links"]
        assert (link["url"], link["title"]) == (f"/d/{other}", every[other]["title"])
        assert (link["keepTime"], link["includeVars"]) == (True, True)
        rows = 0
        for text in everything(dashboard):
            if found := re.fullmatch(r"/d/([\w-]+)\?(.+)", text):
                rows += 1
                assert found[1] in every
                assert "${__url_time_range}" in found[2]
                set_to = re.findall(r"var-(\w+)=\$\{__data\.fields\.(\w+):percentencode\}", found[2])
                kept = re.findall(r"&\$\{(\w+):queryparam\}", found[2])
                assert {name for name, _ in set_to} | set(kept) <= set(variables(every[found[1]]))
                assert ("app", "app") in set_to
                assert "datasource" in kept
        assert rows == 4


def test_a_row_of_a_table_has_the_fields_that_its_links_take() -> None:
    for dashboard in dashboards().values():
        for _, panel in panels(dashboard):
            if panel["type"] == "table":
                named = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
                taken = {name for text in everything(panel) for name in re.findall(r"__data\.fields\.(\w+)", text)}
                assert taken <= named
                (order,) = (one["options"] for one in panel["transformations"] if one["id"] == "organize")
                assert set(order["indexByName"]) == named
                for target in panel["targets"]:
                    assert f"Value #{target['refId']}" in named


@MODES
def test_each_metric_of_the_catalogue_is_shown(recorded: bool) -> None:
    shown = " ".join(
        target["expr"]
        for dashboard in dashboards(Options(recording_rules=recorded)).values()
        for _, target in targets(dashboard)
    )
    for metric in CATALOGUE:
        names = [f"{metric.name}_{part}" if part else metric.name for part in PARTS[metric.kind]]
        names += [one.name for (name, _), one in RECORDINGS.items() if name == metric.name]
        assert any(f"{name}{{" in shown for name in names), metric.name


def test_only_what_is_under_way_is_asked_of_raw_series_where_rules_record() -> None:
    recorded = {one.name for one in RECORDINGS.values()}
    for dashboard in dashboards().values():
        for place, target in targets(dashboard):
            asked = set(re.findall(r"([\w:]+)\{", target["expr"]))
            assert asked <= recorded | {"genapp_action_in_progress"}, place
    for dashboard in dashboards(Options(recording_rules=False)).values():
        assert not [target for _, target in targets(dashboard) if any(name in target["expr"] for name in recorded)]


def test_thresholds_are_drawn_where_the_options_have_them() -> None:
    options = Options(thresholds=Thresholds(handler_seconds=7.5, agent_cancelled_share=0.125))
    limits = {
        (row, panel["title"]): [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for dashboard in dashboards(options).values()
        for row, panel in panels(dashboard)
        if panel["type"] == "timeseries"
    }
    assert limits["Handlers", "p95 of each"] == [None, 7.5]
    assert limits["Agents", "Cancelled share"] == [None, 0.125]
    assert limits["Tasks", "Cancelled share"] == [None]


def test_a_variable_for_a_label_that_its_metric_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="genapp_action_count_total has no label resource; it has name"):
        Variable("resource", "Resource", "Routes.").build(METRICS[3], recorded=True)


def test_a_variable_is_filled_in_whole() -> None:
    assert (
        filled('a{app=~"$app", app_type=~"$app_type"}', {"app": "x", "app_type": "y"}) == 'a{app=~"x", app_type=~"y"}'
    )
