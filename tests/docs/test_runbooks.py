"""The runbooks and the alerts agree."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_common import action_tracking, configure
from llm_common.catalog import CATALOGUE, Kind
from llm_common.monitoring.alerts import Alert, alerts
from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.options import Options
from llm_common.testing import record_metrics
from servers import program

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[2] / "docs" / "runbooks.md"
ALERTS = {alert.name: alert for alert in alerts(Options())}
QUERY = re.compile(r"^```promql\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> Mapping[str, str]:
    _, *parts = re.split(r"^## (\w+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_alert_has_its_runbook_in_order_of_the_rules() -> None:
    assert [name for name in sections() if not name.endswith("Slowly") and not name.endswith("Fast")] == [
        name for name in ALERTS if "Budget" not in name
    ]
    assert sections().keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_a_runbook_names_severity_duration_and_thresholds_as_the_rule_has_them(alert: Alert) -> None:
    first, *rest = sections()[alert.name].strip().split("\n\n")
    thresholds = ", ".join(f"`{name}`" for name in alert.options) or "none"
    expected = f"Severity `{alert.severity}`, for `{alert.for_}`. Thresholds: {thresholds}."
    assert first.replace("\n", " ") == expected
    for start in ("First look", "Usual causes"):
        assert any(paragraph.startswith(start) for paragraph in rest)


def test_the_runbooks_name_dashboards_rows_and_panels_that_exist() -> None:
    titles = set[str]()
    for text in dashboard_files(Options()).values():
        dashboard = json.loads(text)
        panels = [inner for one in dashboard["panels"] for inner in (one, *one.get("panels", ()))]
        titles |= {dashboard["title"], *(one["title"] for one in panels)}
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", QUERY.sub("", PAGE.read_text(encoding="utf-8")))
    assert len(named) > len(ALERTS)
    assert {" ".join(title.split()) for title in named} <= titles


@pytest.mark.once
def test_every_query_of_the_runbooks_is_promql_about_metrics_that_exist(tmp_path: Path) -> None:
    queries = QUERY.findall(PAGE.read_text(encoding="utf-8"))
    assert len(queries) >= len(ALERTS)
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run([program("promtool"), "check", "rules", "rules.yml"], cwd=tmp_path, check=False)
    assert checked.returncode == 0
    known = {"up"}
    for metric in CATALOGUE:
        parts = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        known |= {metric.name + part for part in parts}
    assert set(re.findall(r"\b(?:genapp_\w+|up)\b", " ".join(queries))) <= known


@pytest.mark.once
def test_the_failure_on_the_testing_page_is_a_real_one() -> None:
    program("promtool")
    configure(app="shop_bot")
    with record_metrics() as recorded:
        for number in range(50):
            with action_tracking("answer_llm_call") as tracker:
                if number == 0:
                    tracker.to_fail("empty_answer")
    with pytest.raises(AssertionError) as caught:
        recorded.assert_alert_fires("ActionErrorShareHigh", for_="10m")
    page = (PAGE.parent / "testing.md").read_text(encoding="utf-8")
    assert f"```text\nAssertionError: {caught.value}\n```" in page
