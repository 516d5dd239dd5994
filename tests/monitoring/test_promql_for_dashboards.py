"""The expressions that dashboards add to those of rules."""

import promql_parser
import pytest

from llm_common.action_names import AGENT, TASK
from llm_common.catalog import ACTION_COUNT, ACTION_DURATION, HTTP_REQUEST_SIZE
from llm_common.monitoring.promql import (
    ending,
    existing,
    increase,
    like,
    mean,
    quantile,
    rate,
    series,
    share,
    top,
    within,
)

pytestmark = pytest.mark.once

COUNT = "app_env_name_status:genapp_action_count:rate5m"


def test_a_label_can_be_matched_in_several_ways_at_once() -> None:
    assert series(ACTION_COUNT, name=(like(".+_task"), like("$name"))) == (
        'genapp_action_count_total{name=~".+_task", name=~"$name"}'
    )


def test_a_suffix_alone_is_a_name_too() -> None:
    assert ending(TASK, AGENT) == "(.+_)?(task|agent)"


def test_a_longer_window_averages_what_was_recorded_or_looks_further_back() -> None:
    assert rate(ACTION_COUNT, over="1h") == f"sum (avg_over_time({COUNT}[1h]))"
    assert rate(ACTION_COUNT, over="1h", offset="1w", recorded=False) == (
        "sum (rate(genapp_action_count_total[1h] offset 1w))"
    )


def test_an_increase_adds_up_what_was_recorded() -> None:
    assert increase(ACTION_COUNT, "1h", by=["name"], recorded=True) == (
        f"sum by (name) (sum_over_time({COUNT}[1h:5m])) * 300"
    )


def test_a_share_is_zero_without_a_part_and_missing_without_a_whole() -> None:
    assert share("a", "b") == "(a or 0 * b) / (b > 0)"


def test_a_bound_is_matched_however_it_is_written() -> None:
    asked = within(2.0, ACTION_DURATION, recorded=False, name="menu_handler")
    assert 'genapp_action_duration_sec_bucket{le=~"2([.]0)?", name="menu_handler"}' in asked
    assert "genapp_action_duration_sec_count" in asked
    assert r'le=~"0\\.05([.]0)?"' in within(0.05, ACTION_DURATION)


def test_a_bound_that_no_bucket_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"genapp_action_duration_sec has no bucket up to 3; it has 0\.01, 0\.05"):
        within(3, ACTION_DURATION)


def test_what_the_catalogue_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="a histogram has no part ''; it has 'bucket', 'sum', 'count'"):
        series(ACTION_DURATION)
    with pytest.raises(ValueError, match="genapp_action_count_total has no label state; it has name, status, env, app"):
        series(ACTION_COUNT, state="ok")
    with pytest.raises(ValueError, match="there is no label le to sum by; there are app, env, name, status"):
        rate(ACTION_COUNT, by=["le"])


@pytest.mark.parametrize("recorded", [True, False])
def test_all_of_it_is_promql(recorded: bool) -> None:
    for expression in (
        top(3, share(rate(ACTION_COUNT, status="error", recorded=recorded), rate(ACTION_COUNT, recorded=recorded))),
        mean(HTTP_REQUEST_SIZE, by=["direction"], recorded=recorded),
        within(1, ACTION_DURATION, offset="1w", recorded=recorded),
        existing(
            increase(ACTION_COUNT, "1h", by=["name"], recorded=recorded),
            top(3, quantile(0.5, ACTION_DURATION, by=["name"], over="1h", recorded=recorded)),
            on=["name"],
        ),
    ):
        assert promql_parser.parse(expression) is not None
