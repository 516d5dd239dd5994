import pytest
import yaml

from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import EVERY_RECORDING
from llm_common.monitoring.rules import (
    alert_groups,
    alert_rules_file,
    needed_for,
    recording_groups,
    recording_rules_file,
)

pytestmark = pytest.mark.once


def test_the_files_hold_the_rules_and_long_expressions_keep_their_lines() -> None:
    assert yaml.safe_load(recording_rules_file()) == {"groups": recording_groups()}
    assert yaml.safe_load(alert_rules_file(Options())) == {"groups": alert_groups(Options())}
    assert "    expr: |-\n" in alert_rules_file(Options())


def test_each_recorded_series_has_a_name_of_its_own_that_says_its_labels() -> None:
    names = [one.name for one in EVERY_RECORDING]
    assert len(set(names)) == len(names)
    for one in EVERY_RECORDING:
        level, metric, operation = one.name.split(":")
        assert level == "_".join(one.labels) == "_".join(sorted(one.labels))
        assert one.metric.name.startswith(metric.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count"))
        assert operation.endswith("5m")


def test_an_alert_links_to_its_runbook_only_where_the_documentation_is_served() -> None:
    for alert in alerts(Options()):
        assert set(alert.rule()["annotations"]) == {"summary", "description"}
        link = alert.rule("https://docs.example.org/metrics/")["annotations"]["runbook_url"]
        assert link == f"https://docs.example.org/metrics/runbooks/#{alert.name.lower()}"


def test_summaries_are_short_and_name_the_application_and_the_environment() -> None:
    for alert in alerts(Options()):
        assert "$labels.app" in alert.summary
        assert "$labels.env" in alert.summary
        assert len(alert.summary) <= 150  # templates and all
        assert "\n" not in alert.description


def test_one_alert_can_be_had_with_what_it_needs_alone() -> None:
    groups = [*alert_groups(Options()), *recording_groups()]
    records, alert = needed_for("HttpBudgetBurnsFast", groups)
    assert [rule["record"].rsplit(":", 1)[0] for rule in records["rules"]] == [
        "app_app_type_env_method_resource_status:genapp_http_requests",
        "app_app_type_env_status:genapp_http_requests",
    ]
    assert [rule["alert"] for rule in alert["rules"]] == ["HttpBudgetBurnsFast"]
    (alone,) = needed_for("TargetDown", groups)
    assert [rule["alert"] for rule in alone["rules"]] == ["TargetDown"]
