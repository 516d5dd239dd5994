"""What expressions name, compared with the catalogue."""

import json

import promql_parser
import pytest

from checking import codes, findings, rule_file
from llm_common.catalog import ACTION_COUNT, Buckets
from llm_common.monitoring.checking.run import check
from llm_common.monitoring.checking.sources import Source
from llm_common.monitoring.checking.vocabulary import Values, vocabulary
from llm_common.monitoring.promql import RECORDINGS

pytestmark = pytest.mark.once

COUNT = RECORDINGS[ACTION_COUNT.name, ""].name


@pytest.mark.parametrize(
    "expression",
    [
        "1",
        '"text"',
        "1 + 2 * time()",
        "vector(1)",
        "-genapp_action_in_progress",
        "up",
        'up{job="llm_common", instance=~".+"} == 0',
        "scrape_samples_scraped > 1000",
        'ALERTS{alertname="Any", severity="page", alertstate="firing"}',
        "node_load1",
        'sum by (__name__) (count by (__name__, app) ({__name__=~"genapp_.+"}))',
        'rate(node_cpu_seconds_total{mode="idle"}[5m])',
        'sum by (mode) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
        '{app="shop_bot"}',
        '{__name__=~"genapp_.+_total", app="shop_bot"}',
        '{__name__="genapp_action_count_total", status="ok"}',
        '{__name__=~"node_.+", cpu="0"}',
        '{__name__=~"genapp_action_count_total|node_load1", cpu="0"}',
        '{__name__!~"genapp_.+", cpu="0"}',
        'genapp_action_count_total{instance="a:1", job="b", app="c", env="d", name="e_task", status="cancelled"}',
        'genapp_action_count_total{status!="ok", status!=""}',
        'genapp_action_count_total{status=~"ok|error|cancelled"}',
        'genapp_action_count_total{status=~"(?i)OK|ERROR"}',
        'genapp_action_count_total{status=~"^(?:ok|error)$"}',
        'genapp_action_count_total{status=~".+", name=~".*_handler|x"}',
        'genapp_action_count_total{status=~"|ok"}',
        'genapp_http_requests_total{status=~"5..|error|timeout", method="_OTHER", app_type="auth_api"}',
        'genapp_http_requests_total{status=~"[45]\\\\d{2}|{other}", app_type=~"llm|.+_api"}',
        'genapp_http_requests_total{status=~"(a+)+"}',
        'genapp_http_requests_total{app_type=~"auth_.+"}',
        'genapp_http_request_size_bytes_sum{direction="in"}',
        'genapp_llm_tokens_total{token_type="output"}',
        'genapp_action_duration_sec_bucket{le="5"}',
        'genapp_action_duration_sec_bucket{le="5.0"}',
        'genapp_action_duration_sec_bucket{le=~"5|5\\\\.0|[+]Inf|0\\\\.0.*"}',
        "sum without (instance, job) (genapp_action_in_progress)",
        "topk by (app) (3, sum by (app, name) (rate(genapp_action_count_total[5m])))",
        'count_values by (app) ("amount", genapp_action_in_progress)',
        'sum by (amount) (count_values("amount", genapp_action_in_progress))',
        "sort_by_label(genapp_action_in_progress, 'app')",
        "histogram_quantile(0.5, sum by (le) (rate(genapp_action_duration_sec_bucket[5m])))",
        "histogram_quantile(0.5, rate(other_bucket[5m]))",
        f"sum by (app) ({COUNT})",
        f'{COUNT}{{status="error"}} / on (app, env, name) group_left () sum by (app, env, name) ({COUNT})',
        "max_over_time(sum(rate(genapp_action_count_total[5m]))[1h:1m])",
        "rate(genapp_action_count_total[5m:1m])",
        "rate(node_cpu_seconds_total[5m])",
        'label_replace(genapp_action_in_progress, "kind", "$1", "name", ".+_(.+)")',
        'sum by (kind) (label_replace(genapp_action_in_progress, ("kind"), "$1", "name", ".+_(.+)"))',
        'sum by (both) (label_join(genapp_action_in_progress, "both", "/", "app", "name"))',
        'sum by (app) (absent(genapp_action_in_progress{app="a"}))',
        'sum by (app) (absent_over_time((genapp_action_in_progress{app="a"}[5m])))',
        "absent(sum(genapp_action_in_progress))",
        "sum by (any) (info(genapp_action_in_progress))",
        "genapp_action_in_progress unless ignoring (name) genapp_action_in_progress",
        "sum by (app, resource) (genapp_action_in_progress or genapp_http_requests_total)",
        "genapp_action_in_progress or node_load1",
        "sum by (cpu) (genapp_action_in_progress or node_load1)",
        "genapp_action_in_progress * on (app) group_left (cpu) node_load1",
        "sum by (cpu) (node_load1 * on (app) group_left (name) sum by (app, name) (genapp_action_in_progress))",
        "sum by (app) (genapp_action_in_progress) * on (app) group_right () genapp_action_in_progress",
        "sum by (app) (genapp_action_in_progress / ignoring (name) genapp_action_in_progress)",
        "sum by (cpu) (node_load1 / node_load5)",
        "1 + genapp_action_in_progress > bool 0",
        "histogram_quantile(scalar(up), genapp_action_duration_sec_bucket)",
        'genapp_action_in_progress{name="a" or app="b"}',
        "genapp_action_count_total offset 1w @ end()",
        "sum(genapp_action_in_progress) # a sum",
    ],
)
def test_what_exists_is_no_finding(expression: str) -> None:
    assert [one.text for one in findings(rule_file(expression))] == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("genapp_actions_total", ["MC101"]),
        ("genapp_action_duration_sec", ["MC101"]),
        ("genapp_action_count_total_bucket", ["MC101"]),
        ("genapp_action_count_created", ["MC101"]),
        ("app_env:genapp_action_count:rate1h", ["MC101"]),
        ('{__name__="genapp_actions"}', ["MC101"]),
        ('{__name__=~"genapp_actoin_.+|genapp_http_.+"}', ["MC101"]),
        ('{__name__=~"genapp_action_.+", resource="/"}', ["MC201"]),
        ("genapp_action_duration_sec_bucket{status='ok'}", ["MC201"]),
        ("genapp_action_duration_sec_sum{le='5'}", ["MC201"]),
        ('up{app="a"}', ["MC201"]),
        (f'{COUNT}{{instance="a"}}', ["MC201"]),
        ('genapp_action_in_progress{nam="a" or ap="b"}', ["MC201", "MC201"]),
        ("sum by (nam) (genapp_action_in_progress)", ["MC202"]),
        ("sum without (pod) (genapp_action_in_progress)", ["MC202"]),
        ("sum by (app) (sum by (env) (genapp_action_in_progress))", ["MC202"]),
        ("sum by (app) (sum(genapp_action_in_progress))", ["MC202"]),
        ("sum by (app) (sum without (app) (genapp_action_in_progress))", ["MC202"]),
        ("topk by (pod) (3, genapp_action_in_progress)", ["MC202"]),
        ("topk(scalar(genapp_limit), genapp_action_in_progress)", ["MC101"]),
        ("genapp_action_in_progress * on (app) up", ["MC202"]),
        ("up * on (app) genapp_action_in_progress", ["MC202"]),
        ("up * ignoring (pod) up", ["MC202"]),
        ("genapp_action_in_progress * on (job) group_left (env) up", ["MC202"]),
        ("genapp_action_in_progress and on (pod) genapp_action_in_progress", ["MC202", "MC202"]),
        ("sum by (env) (genapp_action_in_progress * on (app) genapp_action_in_progress)", ["MC202"]),
        ("sum by (le) (histogram_quantile(0.5, genapp_action_duration_sec_bucket))", ["MC202"]),
        ("sum by (app) (vector(1))", ["MC202"]),
        ("sum by (app) (absent(genapp_action_in_progress))", ["MC202"]),
        ('label_replace(genapp_action_in_progress, "kind", "$1", "nam", ".+_(.+)")', ["MC202"]),
        ('label_join(genapp_action_in_progress, "both", "/", "app", "pod")', ["MC202"]),
        ("sort_by_label_desc(genapp_action_in_progress, 'pod')", ["MC202"]),
        ('genapp_action_count_total{status="failed"}', ["MC301"]),
        ('genapp_action_count_total{status!="failed"}', ["MC301"]),
        ('genapp_action_count_total{status=""}', ["MC301"]),
        ('genapp_action_count_total{status=~"error|canceled"}', ["MC301"]),
        ('genapp_action_count_total{status!~"o.|fail.+"}', ["MC301"]),
        ('genapp_action_count_total{status=~"(?:error|canceled)"}', ["MC301"]),
        ('genapp_action_count_total{status="500"}', ["MC301"]),
        ('genapp_http_requests_total{status="ok"}', ["MC301"]),
        ('genapp_http_requests_total{status=~"5..|6x."}', ["MC301"]),
        ('genapp_http_requests_total{method="get"}', ["MC301"]),
        ('genapp_http_requests_total{app_type=~"app_api|telegram"}', ["MC301"]),
        ('genapp_http_request_size_bytes_sum{direction="incoming"}', ["MC301"]),
        (f'{COUNT}{{status="failed"}}', ["MC301"]),
        ('genapp_action_duration_sec_bucket{le="4"}', ["MC302"]),
        ('genapp_action_duration_sec_bucket{le="inf."}', ["MC302"]),
        ('genapp_action_duration_sec_bucket{le=~"5|4"}', ["MC302"]),
        ('genapp_action_duration_sec_bucket{le=~"4.+"}', []),
        ('genapp_action_duration_sec_bucket{le=~"7.+"}', ["MC302"]),
        ("rate(genapp_action_in_progress[5m])", ["MC401"]),
        (f"rate({COUNT}[5m])", ["MC401"]),
        ("irate(rate(genapp_action_count_total[5m])[5m:1m])", ["MC401"]),
        ('increase({__name__="genapp_action_in_progress"}[5m])', ["MC401"]),
        ("histogram_quantile(0.5, rate(genapp_action_count_total[5m]))", ["MC402"]),
        ("histogram_quantile(0.5, sum(rate(genapp_action_duration_sec_bucket[5m])))", ["MC402"]),
        ("rate(sum(genapp_action_count_total)[5m:1m])", ["MC403"]),
        ("sum(", ["MC903"]),
        ("", []),
        ("sum(x) foo", ["MC903"]),
        ("no_function(x)", ["MC903"]),
        ("rate(genapp_action_count_total)", ["MC903"]),
        ('x{a=~"("}', ["MC903"]),
        ("\ud800", ["MC903"]),
        ("(" * 3000 + "x" + ")" * 3000, ["MC903"]),
        ("-" * 100_000 + "x", ["MC903"]),
        ("x" + " + x" * 900, ["MC903"]),
    ],
)
def test_what_does_not_exist_is_a_finding(expression: str, expected: list[str]) -> None:
    assert codes(rule_file(expression)) == expected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            "genapp_action_counts_total",
            "there is no metric 'genapp_action_counts_total'; write 'genapp_action_count_total'",
        ),
        ("genapp_zzzzzz", "there is no metric 'genapp_zzzzzz'; name one that exists"),
        ("up{ap='a'}", "up has no label 'ap'; it has instance, job"),
        ("sum by (pod) (vector(1))", "there is no label 'pod' to group by; it has no labels"),
        (
            "genapp_action_count_total{status='x'}",
            "status of genapp_action_count_total is never 'x'; it is one of cancelled, error, ok",
        ),
        (
            "genapp_http_requests_total{status='x'}",
            (
                "status of genapp_http_requests_total is never 'x'; it is one of three digits or "
                "cancelled, error, timeout, {other}"
            ),
        ),
        (
            "genapp_http_requests_total{app_type='x'}",
            (
                "app_type of genapp_http_requests_total is never 'x'; "
                "it is one of app_api, llm, telegram_api, triton, {other}, or ends with _api"
            ),
        ),
        (
            "genapp_http_request_size_bytes_bucket{le='7'}",
            (
                "'7' is no bound of genapp_http_request_size_bytes_bucket; its bounds are "
                "100.0, 1000.0, 5000.0, 10000.0, 50000.0, 100000.0, 500000.0, 1000000.0, 5000000.0, 10000000.0, "
                "50000000.0, 100000000.0, 500000000.0, 1000000000.0, +Inf"
            ),
        ),
        (
            "rate({job='x', __name__='genapp_action_in_progress'}[5m])",
            "rate() takes a counter, and it is none; ask for it as it is",
        ),
    ],
)
def test_a_finding_says_what_is_wrong_and_what_to_do(expression: str, text: str) -> None:
    (found,) = findings(rule_file(expression))
    assert found.text == f"rule own:0: {text}"


def test_a_finding_points_at_the_word() -> None:
    expression = 'genapp_action_count_total{app="status"} / on (app)\n  genapp_action_count_total{app="a", nam="b"}'
    (found,) = findings(rule_file(expression))
    assert (found.excerpt, found.offset) == (expression, expression.index("nam"))


def test_labels_that_a_scrape_configuration_adds_can_be_named() -> None:
    text = rule_file('up{pod="a"} * on (pod) genapp_action_in_progress{pod="b"}')
    assert sorted(codes(text)) == ["MC201", "MC201", "MC202", "MC202"]
    assert codes(text, vocabulary(target_labels=["pod"])) == []


def test_bounds_are_those_of_the_settings() -> None:
    text = rule_file('genapp_action_duration_sec_bucket{le="4"}')
    assert codes(text, vocabulary(buckets=Buckets(action_duration=(4.0,)))) == []


def test_what_rules_record_is_known_in_all_that_is_checked_together() -> None:
    recorded = rule_file("sum by (app) (genapp_action_in_progress)", labels={"team": "shop"})
    asking = rule_file("sum by (app, team, env) (own:0)").replace('own:0", "expr', 'asking", "expr')
    sources = [Source("asking.yml", given=asking.encode()), Source("recorded.yml", given=recorded.encode())]
    (found,) = check(sources)[0]
    assert found.text == "rule asking: there is no label 'env' to group by; it has app, team"


def test_several_rules_may_record_the_same() -> None:
    recording = [
        ("a:genapp_b", "sum by (app) (genapp_action_in_progress)"),
        ("a:genapp_b", "sum by (env) (genapp_action_in_progress)"),
        ("a:genapp_c", "node_load1"),
        ("a:genapp_d", "sum("),
        ("a:genapp_e", "a:genapp_e"),
        ("e", "sum by (app, env) (a:genapp_b)"),
        ("e", "sum by (cpu) (a:genapp_c)"),
        ("e", "sum by (x) (a:genapp_d) + sum by (x) (a:genapp_e)"),
        ("e", "a:genapp_f"),
    ]
    rules = [{"record": record, "expr": expression} for record, expression in recording]
    text = json.dumps({"groups": [{"rules": rules}]})
    assert sorted(codes(text)) == ["MC101", "MC903"]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Values(), Values(frozenset("a")), Values()),
        (Values(seen=frozenset("a")), Values(seen=frozenset("b")), Values(seen=frozenset("ab"))),
        (Values(frozenset("a"), ending="_api"), Values(frozenset("b")), Values(frozenset("ab"), ending="_api")),
        (
            Values(frozenset("1"), numbers=True),
            Values(frozenset("2"), numbers=True),
            Values(frozenset("12"), numbers=True),
        ),
    ],
)
def test_values_of_several_series_are_those_of_either(one: Values, other: Values, both: Values) -> None:
    assert one | other == both


def test_every_kind_of_node_of_the_parser_is_examined() -> None:
    kinds = {
        name
        for name in vars(promql_parser)
        if isinstance(kind := getattr(promql_parser, name), type)
        and issubclass(kind, promql_parser.Expr)
        and kind is not promql_parser.Expr
    }
    assert kinds == {
        "AggregateExpr",
        "BinaryExpr",
        "Call",
        "MatrixSelector",
        "NumberLiteral",
        "ParenExpr",
        "StringLiteral",
        "SubqueryExpr",
        "UnaryExpr",
        "VectorSelector",
    }
