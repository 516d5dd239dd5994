"""What dashboards and rule files ask."""

import json
from typing import Any

import pytest

from checking import codes, dashboard, findings, rule_file
from llm_common.monitoring.checking.queries import dashboard as read_dashboard
from llm_common.monitoring.checking.queries import panels
from llm_common.monitoring.checking.queries import rules as read_rules

pytestmark = pytest.mark.once

WRONG = {"expr": "genapp_actions"}


def variable(query: Any, **more: Any) -> dict[str, Any]:
    return {"name": "one", "type": "query", "query": query, **more}


@pytest.mark.parametrize(
    "document",
    [
        {"panels": [{"title": "Panel", "targets": [WRONG]}]},
        {"panels": [{"type": "row", "panels": [{"title": "Panel", "targets": [WRONG]}]}]},
        {"rows": [{"panels": [{"title": "Panel", "targets": [WRONG]}]}]},
        {"dashboard": {"panels": [{"title": "Panel", "targets": [WRONG]}]}, "meta": {}},
        {"panels": [{"title": "Panel", "datasource": {"type": "prometheus", "uid": "x"}, "targets": [WRONG]}]},
        {"panels": [{"title": "Panel", "datasource": "Prometheus", "targets": [WRONG]}]},
        {
            "panels": [
                {
                    "title": "Panel",
                    "datasource": {"type": "loki"},
                    "targets": [{**WRONG, "datasource": {"type": "prometheus"}}],
                }
            ]
        },
        {"panels": [{"title": "Panel", "targets": [WRONG, {"expr": ""}, {"expr": 1}, {"query": "x"}, 1]}, 1]},
    ],
)
def test_panels_are_found_wherever_they_are(document: object) -> None:
    (found,) = findings(json.dumps(document))
    assert (found.code, found.subject) == ("MC101", "panel 'Panel'")


def test_questions_to_other_sources_are_left_out() -> None:
    loki = {"type": "loki"}
    assert codes(dashboard({**WRONG, "datasource": loki})) == []
    assert codes(dashboard(WRONG, datasource=loki)) == []
    assert codes(dashboard(variables=[variable("genapp_actions", datasource=loki)])) == []


def test_panels_come_in_the_order_of_the_document_and_once() -> None:
    one: dict[Any, Any] = {"title": "1", "targets": []}
    two: dict[Any, Any] = {"title": "2", "targets": [], "panels": [one]}
    three: dict[Any, Any] = {"title": "3", "targets": []}
    two["panels"].append(two)
    assert [panel["title"] for panel in panels({"panels": [two, three, one]})] == ["2", "1", "3"]


def test_annotations_ask_too() -> None:
    for one in ({"name": "restarts", **WRONG}, {"name": "restarts", "target": WRONG}):
        (found,) = findings(json.dumps({"panels": [], "annotations": {"list": [one]}}))
        assert found.subject == "annotation 'restarts'"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("label_values(app)", []),
        ("label_values(genapp_action_count_total, app)", []),
        ('label_values(genapp_action_count_total{env=~"$env", name=~"a,b"}, app)', []),
        ("label_values(genapp_action_count_total, $label)", []),
        ("label_values(genapp_action_count_total, __name__)", []),
        ("label_values(genapp_actions, app)", ["MC101"]),
        ("label_values(genapp_action_count_total{nam='a'}, app)", ["MC201"]),
        ("label_values(genapp_action_count_total, ap)", ["MC203"]),
        ("label_values(genapp_action_count_total, pod)", ["MC203"]),
        ("label_values(", ["MC903"]),
        ("query_result(topk(5, genapp_action_count_total))", []),
        ("query_result(topk(5, genapp_actions))", ["MC101"]),
        ("label_names()", []),
        ("metrics(genapp_.*)", []),
        ("genapp_actions", ["MC101"]),
        ("", []),
        (None, []),
        ({"query": "label_values(genapp_actions, app)", "refId": "A"}, ["MC101"]),
        ({"query": 1}, []),
    ],
)
def test_variables_ask_in_forms_of_their_own(query: object, expected: list[str]) -> None:
    assert codes(dashboard(variables=[variable(query)])) == expected


def test_a_variable_of_another_kind_asks_nothing() -> None:
    assert codes(dashboard(variables=[variable("genapp_actions", type="custom")])) == []


@pytest.mark.parametrize(
    ("target", "panel", "expected"),
    [
        ({"legendFormat": "{{app}} {{ env }} {{__name__}}"}, {}, []),
        ({"legendFormat": "__auto"}, {}, []),
        ({"legendFormat": None}, {}, []),
        ({"legendFormat": "{{ap}} {{pod}}"}, {}, ["MC203", "MC203"]),
        ({}, {"links": [{"url": "/d/x?var-app=${__field.labels.app}&${__series.labels['env']}"}]}, []),
        ({}, {"links": [{"url": "/d/x?var-app=${__field.labels.ap:percentencode}"}]}, ["MC203"]),
        ({}, {"fieldConfig": {"x": [{"y": '${__field.labels["pod"]}'}]}}, ["MC203"]),
    ],
)
def test_texts_of_a_panel_name_labels_of_the_result(target: Any, panel: Any, expected: list[str]) -> None:
    asked = {"expr": "sum by (app, env) (genapp_action_in_progress)", **target}
    assert codes(dashboard(asked, **panel)) == expected


def test_a_text_says_what_it_could_name() -> None:
    asked = {"expr": "sum by (app) (genapp_action_in_progress)", "legendFormat": "{{ap}} {{pod}}"}
    assert [one.text for one in findings(dashboard(asked))] == [
        "panel 'Panel': the text '{{ap}} {{pod}}' names the label 'ap', which the result doesn't have; write 'app'",
        "panel 'Panel': the text '{{ap}} {{pod}}' names the label 'pod', which the result doesn't have; it has app",
    ]
    (found,) = findings(dashboard({"expr": "sum(up)", "legendFormat": "{{pod}}"}))
    assert found.fix == "it has no labels"


def test_texts_of_a_result_that_nobody_knows_may_name_anything() -> None:
    assert codes(dashboard({"expr": "node_load1", "legendFormat": "{{cpu}}"})) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ $labels.app }}: {{ $value }}", []),
        ("{{ .Labels.app }}", []),
        ("{{ $labels.pod }}", ["MC203"]),
        ("{{ .Labels.pod }}", ["MC203"]),
        ("{{ with $labels.pod }}{{ . }}{{ end }}", []),
        ("{{- if $labels.pod -}}{{ $labels.pod }}{{ end }}{{ $labels.zone }}", ["MC203"]),
    ],
)
@pytest.mark.parametrize("place", ["annotations", "labels"])
def test_texts_of_an_alert_name_labels_of_the_result(text: str, expected: list[str], place: str) -> None:
    asked = "sum by (app) (genapp_action_in_progress) > 1"
    assert codes(rule_file(asked, **{place: {"summary": text}})) == expected


def test_rules_are_found_in_a_resource_of_kubernetes_too() -> None:
    document = {"kind": "PrometheusRule", "spec": json.loads(rule_file("genapp_actions"))}
    assert codes(json.dumps(document)) == ["MC101"]


def test_an_alert_is_called_by_its_name() -> None:
    (found,) = findings(
        "groups: [{name: a, rules: [{alert: Down, expr: genapp_actions}, {expr: 1}, {alert: x}, 5]}, 7]"
    )
    assert found.subject == "alert Down"


@pytest.mark.parametrize(
    "document",
    [None, 1, [], {}, {"panels": 1}, {"groups": {}}, {"spec": 1}, {"dashboard": 1}, {"dashboard": {}}, {"spec": {}}],
)
def test_what_is_neither_is_neither(document: object) -> None:
    assert read_dashboard(document) is None
    assert read_rules(document) is None


@pytest.mark.parametrize(
    "document",
    [
        {"panels": [], "templating": 1, "annotations": 1},
        {"panels": [], "templating": {"list": 1}, "annotations": {"list": {}}},
        {"panels": [{"targets": {}}], "templating": {"list": [1, {}]}},
        {"groups": [{"rules": 1}, {}, None]},
        {"groups": [{"rules": [{"expr": []}, {"expr": "1", "labels": 1, "annotations": [1, None]}]}]},
    ],
)
def test_what_is_of_another_shape_inside_is_passed_over(document: object) -> None:
    assert codes(json.dumps(document)) == []
