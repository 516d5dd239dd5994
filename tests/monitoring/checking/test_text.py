"""The texts of expressions: strings and ranges in them, and what Grafana's variables become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checking import codes, dashboard
from llm_common.monitoring.checking.text import (
    NotPromQLError,
    Variable,
    parsed,
    position,
    regions,
    variable_in,
)

pytestmark = pytest.mark.once

SHORT = {"string": "s", "range": "r", "comment": "c", "code": "."}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a{b="c"}[5m]', "....sss..rr."),
        (r'"a\"b" + 1', "ssssss...."),
        (r"`a\` + 1", "ssss...."),
        ("'a' # b\nc", "sss.cccc."),
        ("[[a]] [5m:1m]", ".rrr...rrrrr."),
        ("]", "."),
    ],
)
def test_each_character_is_in_a_region(text: str, expected: str) -> None:
    assert "".join(SHORT[one] for one in regions(text)) == expected


@given(st.text(alphabet="ab\"'`\\#\n[]{}() "))
def test_there_is_a_region_for_each_character(text: str) -> None:
    assert len(list(regions(text))) == len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate(x[$__rate_interval])", "rate(x{}[5m])"),
        ("rate(x[${__range_s}s])", "rate(x{}[5m])"),
        ("rate(x[[[window]]])", "rate(x{}[5m])"),
        ("max_over_time(x[$__range:$__interval])", "max_over_time(x{}[5m:5m])"),
        ("x offset $shift", "x{} offset 5m"),
        ("x offset -$shift", "x{} offset -5m"),
        ("x offset ${window:raw}", "x{} offset 5m"),
        ("x offset $window", "x{} offset 5m"),
        ("topk($most, x)", "topk(300, x{})"),
        ("topk($few, x)", "topk(300, x{})"),
        ("x * $__range_s", "x{} * 300"),
        (
            'x{a=~"$app", b=~"${env:regex}|y", c="[[env]]"}',
            'x{a=~"__variable_app__",b=~"__variable_env__|y",c="__variable_env__"}',
        ),
        ("sum by ($group) ($metric)", "sum by (__variable_group__)(__variable_metric__{})"),
        ("topk($n, sum by ($group) (x))", "topk(300, sum by (__variable_group__)(x{}))"),
        ('label_replace(x, "a", "$1", "b", "(.*)")', 'label_replace(x{}, "a", "$1", "b", "(.*)")'),
    ],
)
def test_variables_are_replaced_by_what_fits(text: str, expected: str) -> None:
    variables = {"window": Variable(duration=True), "few": Variable(("1", "2")), "group": Variable(("app", "env"))}
    assert str(parsed(text, variables)) == expected


def test_where_no_replacement_fits_the_expression_is_wrong() -> None:
    with pytest.raises(NotPromQLError, match="invalid promql query"):
        parsed("x $a $b", {})
    with pytest.raises(NotPromQLError, match="longer than"):
        parsed("-" * 4000 + "x", {})


@pytest.mark.parametrize("text", ["x offset NaN", "x[9223372036854775807]", "x offset 1e300"])
def test_where_the_parser_itself_gives_up_the_expression_is_wrong(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotPromQLError):
        parsed(text, {})


def test_ctrl_c_reaches_through_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("promql_parser.parse", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parsed("x", {})


@pytest.mark.parametrize(
    ("text", "name"),
    [("__variable_app__", "app"), ("app", ""), ("__variable_app__x", ""), ("__variable_a____variable_b__", "")],
)
def test_a_value_may_be_a_variable_and_nothing_else(text: str, name: str) -> None:
    assert variable_in(text) == name


@pytest.mark.parametrize(
    ("word", "after", "expected"),
    [("a", "", 11), ("a", "zz", 11), ("bc", "", 15), ("bc", "c", 15), ("ab", "", 0), ("x", "", 0), ("", "", 0)],
)
def test_a_word_is_found_whole_where_it_can_be(word: str, after: str, expected: int) -> None:
    assert position("abc a_ b:a a c bc", word, after) == expected


def variable(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": "query", "query": "", **more}


@pytest.mark.parametrize(
    ("expression", "variables", "expected"),
    [
        ('genapp_action_count_total{status="$state", name=~"$name", app=~"(a|$app)"}', [], []),
        (
            'genapp_action_count_total{status="$state"}',
            [variable("state", type="custom", query="ok, no : failed")],
            ["MC301"],
        ),
        (
            'genapp_action_count_total{status=~"ok|$state"}',
            [variable("state", type="custom", query="ok,failed")],
            ["MC301"],
        ),
        (
            'genapp_action_count_total{status=~"$state"}',
            [variable("state", type="custom", query="ok, all : error|cancelled")],
            [],
        ),
        ('genapp_action_count_total{status="$state"}', [variable("state", type="constant", query="a,b")], ["MC301"]),
        ('genapp_action_count_total{status="$state"}', [variable("state", type="textbox", query="a")], []),
        ('genapp_action_count_total{status="$state"}', [variable("state", type="custom", query=",")], []),
        ('genapp_action_count_total{status="$state"}', [variable("state", type="custom", query=1)], []),
        ('genapp_action_count_total{$label="a"}', [], []),
        ("sum by ($label, pod) (genapp_action_count_total)", [], ["MC202"]),
        ("sum by (pod) (sum by ($label) (genapp_action_count_total))", [], []),
        ("genapp_${metric}_total", [], []),
        ('{__name__=~"genapp_$metric", pod="a"}', [], []),
        (
            "rate(genapp_action_count_total[$window] offset $window)",
            [variable("window", type="interval", query="1m,5m")],
            [],
        ),
    ],
)
def test_values_of_variables_are_checked_where_the_dashboard_has_them_all(
    expression: str, variables: list[dict[str, object]], expected: list[str]
) -> None:
    assert codes(dashboard({"expr": expression}, variables=variables)) == expected
