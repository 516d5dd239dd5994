"""Expressions that are built from the catalogue, read by a real parser of PromQL."""

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_SIZE,
    CATALOGUE,
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
)
from llm_common.monitoring.promql import (
    RECORDINGS,
    _recording,
    in_progress,
    increase,
    like,
    other_than,
    quantile,
    quoted,
    rate,
    series,
    unlike,
)

pytestmark = pytest.mark.once


def test_a_selector_has_the_matchers_that_were_given() -> None:
    selector = series(ACTION_COUNT, name=like(".+_task"), status=other_than("ok"), env="prod", app=unlike("test.*"))
    assert selector == 'genapp_action_count_total{name=~".+_task", status!="ok", env="prod", app!~"test.*"}'
    promql_parser.parse(selector)
    assert series(ACTION_SIZE) == "genapp_action_size_total"


def test_what_the_catalogue_lacks_is_an_error_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="genapp_action_size_total has no label status; it has name, env, app"):
        series(ACTION_SIZE, status="ok")
    with pytest.raises(ValueError, match="a histogram has no part ''; it has 'bucket', 'sum', 'count'"):
        series(ACTION_DURATION)
    with pytest.raises(ValueError, match="a counter has no part 'bucket'"):
        series(ACTION_COUNT, "bucket")
    with pytest.raises(ValueError, match="there is no label nam to sum by"):
        rate(ACTION_COUNT, by=["nam"])
    with pytest.raises(ValueError, match="has no label le"):
        series(ACTION_DURATION, "sum", le="5.0")
    with pytest.raises(ValueError, match="has no label method"):
        rate(HTTP_REQUEST_DURATION, "bucket", method="GET", recorded=False)  # as the rule doesn't keep it


@given(st.text())
def test_any_text_can_be_the_value_of_a_label(text: str) -> None:
    parsed = promql_parser.parse(f"up{{app={quoted(text)}}}")
    assert isinstance(parsed, promql_parser.VectorSelector)
    (matcher,) = parsed.matchers.matchers
    assert matcher.value == text


def test_recorded_and_raw_rates_are_sums_over_the_same_labels() -> None:
    asked = {"by": ["app"], "status": "error", "offset": "1w"}
    recording = "app_app_type_env_method_resource_status:genapp_http_requests:rate5m"
    assert (
        rate(HTTP_REQUESTS, **asked)  # type: ignore[arg-type]
        == f'sum by (app) ({recording}{{status="error"}} offset 1w)'
    )
    assert (
        rate(HTTP_REQUESTS, recorded=False, **asked)  # type: ignore[arg-type]
        == 'sum by (app) (rate(genapp_http_requests_total{status="error"}[5m] offset 1w))'
    )
    assert rate(ACTION_SIZE) == "sum (app_env_name:genapp_action_size:rate5m)"


def test_other_operations_are_sums_too() -> None:
    assert (
        increase(ACTION_COUNT, "1h", by=["name"], offset="1d", status="ok")
        == 'sum by (name) (increase(genapp_action_count_total{status="ok"}[1h] offset 1d))'
    )
    assert in_progress(by=["name"], app="shop") == 'sum by (name) (genapp_action_in_progress{app="shop"})'
    assert (
        quantile(0.95, ACTION_DURATION, by=["name"], recorded=False)
        == "histogram_quantile(0.95, sum by (name, le) (rate(genapp_action_duration_sec_bucket[5m])))"
    )


def test_every_metric_is_recorded_by_a_rule_that_parses_and_is_named_after_its_labels() -> None:
    recorded = {name for name, _ in RECORDINGS}
    gauges = {"genapp_action_in_progress"}
    assert recorded == {metric.name for metric in CATALOGUE} - gauges
    for recording in RECORDINGS.values():
        parsed = promql_parser.parse(recording.expression)
        assert isinstance(parsed, promql_parser.AggregateExpr)
        assert parsed.modifier is not None
        assert tuple(parsed.modifier.labels) == recording.labels
        level, family, operation = recording.name.split(":")
        assert level == "_".join(recording.labels)
        assert recording.metric.family in family
        assert operation == "rate5m"


def test_a_rule_that_drops_a_label_which_the_metric_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="genapp_action_size_total has no label status"):
        _recording(ACTION_SIZE, without=["status"])
