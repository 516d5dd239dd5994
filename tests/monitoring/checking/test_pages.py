"""Pages of metrics: what honours the contract and what doesn't."""

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.exposition import choose_encoder

from checking import codes, findings, rule_file
from llm_common import action_tracking, configure, http_tracking
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import CATALOGUE, HISTOGRAMS
from llm_common.monitoring.checking import pages
from llm_common.monitoring.checking.rules import counted, histogram
from llm_common.monitoring.checking.vocabulary import CONTRACT_BOUNDS, Vocabulary, vocabulary
from llm_common.prometheus import render_metrics

pytestmark = pytest.mark.once

ACCEPT = "application/openmetrics-text; version=1.0.0"


def openmetrics(registry: CollectorRegistry) -> bytes:
    return choose_encoder(ACCEPT)[0](registry)


ACTION = 'name="menu_handler",status="ok",env="prod",app="shop_bot"'


@pytest.fixture
def page(registry: CollectorRegistry) -> bytes:
    """Return a page of an application that did everything."""
    configure(app="shop_bot", env="prod", backends=[PrometheusBackend(registry)], extra_metrics="all", strict=True)
    with action_tracking("menu_handler") as tracker:
        tracker.size(3)
    with pytest.raises(KeyError), action_tracking("nightly_task"):
        raise KeyError
    http_tracking(
        app_type="llm", resource="chat", method="post", status_code=200, duration=0.1, request_size=1, response_size=2
    )
    http_tracking(
        app_type="auth_api",
        resource="login",
        method="brew",
        status_code="timeout",
        duration=0.1,
        request_size=1,
        response_size=0,
    )
    return render_metrics(registry=registry)[0]


def known_from(text: str) -> Vocabulary:
    return pages.with_pages(vocabulary(), pages.families_in(text), CATALOGUE)


def test_our_own_pages_honour_the_contract(page: bytes, registry: CollectorRegistry) -> None:
    assert codes(page) == []
    assert codes(render_metrics(ACCEPT, registry=registry)[0]) == []


def test_metrics_of_the_application_are_its_own_affair(registry: CollectorRegistry) -> None:
    Counter("shop_orders", "Orders.", ["kind"], registry=registry).labels("new").inc()
    assert codes(counted("1.0") + generate_latest(registry).decode()) == []


def test_prometheus_client_alone_makes_what_the_contract_does_not_have(registry: CollectorRegistry) -> None:
    Counter("genapp_action_count", "Actions.", ["name", "status", "env", "app"], registry=registry).labels(
        "menu_handler", "ok", "prod", "shop_bot"
    ).inc()
    assert codes(generate_latest(registry)) == ["MC505"]
    assert codes(openmetrics(registry)) == ["MC505"]


def test_other_buckets_than_the_contracts_are_found(registry: CollectorRegistry) -> None:
    Histogram(
        "genapp_action_duration_sec", "Duration.", ["name", "env", "app"], registry=registry, buckets=(0.5, 1, 60)
    ).labels("a_task", "prod", "shop_bot").observe(1)
    found = {one.code: one.text for one in findings(generate_latest(registry))}
    assert found["MC507"] == (
        "the buckets of genapp_action_duration_sec lack the bounds 0.01, 0.1, 2, 5, 10, 20, 30, 120, 600, 3600, 43200, "
        "86400; add them: without them quantiles over several applications are wrong"
    )
    assert set(found) == {"MC505", "MC507"}


def test_the_catalogue_has_the_bounds_of_the_contract() -> None:
    bounds = {metric.name: set(metric.buckets) for metric in HISTOGRAMS}
    assert all(set(due) <= bounds[name] for name, due in CONTRACT_BOUNDS.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "genapp_xyz 1\n",
            "the catalogue has no 'genapp_xyz'; give your own metrics another prefix",
        ),
        (
            counted("1.0").replace("action_count", "action_counts"),
            "the catalogue has no 'genapp_action_counts_total'; is 'genapp_action_count_total' meant?",
        ),
        ("genapp_zzzz_created 1\n", "the catalogue has no 'genapp_zzzz_created'; give your own metrics another prefix"),
        (
            f"genapp_action_count_total{{{ACTION}}} 1\n",
            (
                "genapp_action_count_total is a counter, and the page says unknown; "
                "the comment before it has to say: # TYPE genapp_action_count_total counter"
            ),
        ),
        (
            counted("1.0", team="a"),
            (
                "genapp_action_count_total has 'team', which the contract doesn't have; "
                "drop it; what else is worth measuring becomes a metric of its own"
            ),
        ),
        (
            counted("1.0", env="", status=""),
            "genapp_action_count_total lacks 'env', 'status'; its labels are a contract: emit them all",
        ),
        (
            counted("1.0", status="errors"),
            "status of genapp_action_count_total is 'errors', which the contract doesn't have; write 'error'",
        ),
        (
            counted("1.0", status="xxxxxx"),
            (
                "status of genapp_action_count_total is 'xxxxxx', which the contract doesn't have; "
                "record it with llm_common, which has a word for everything"
            ),
        ),
        (counted("-1.0"), "genapp_action_count_total is -1; a counter is a number that only grows, from 0"),
        (counted("+Inf"), "genapp_action_count_total is inf; a counter is a number that only grows, from 0"),
        (
            counted("1.0", name="menu_handler_handler"),
            "the name 'menu_handler_handler' has two suffixes; write 'menu_handler'",
        ),
        (
            "".join(counted("1.0", app=f"app{number}") for number in range(7)),
            (
                "the page has series of several applications or environments: 'prod/app0', 'prod/app1', 'prod/app2', "
                "'prod/app3', 'prod/app4' and 2 more; call configure() once, before the first action"
            ),
        ),
    ],
)
def test_a_finding_says_what_is_wrong_and_what_to_do(text: str, message: str) -> None:
    assert [one.text for one in findings(text)] == [message]


def test_a_value_of_app_type_may_be_a_name_with_its_ending() -> None:
    labels = 'method="GET",status="200",resource="/",app_type="auth",env="prod",app="a"'
    (found,) = findings(f"# TYPE genapp_http_requests_total counter\ngenapp_http_requests_total{{{labels}}} 1\n")
    assert found.fix.endswith("or a name that ends with _api")


STREAMED = 'name="answer_llm_call",env="prod",app="shop_bot"'


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (',le="+Inf"} 1.0', ',le="7"} 1.0', "genapp_action_first_item_sec has no bucket +Inf"),
        (',le="1.0"} 1.0', ',le="x"} 1.0', "genapp_action_first_item_sec has a bucket whose bound is 'x'"),
        (',le="1.0"} 1.0', ',le="1.0"} 3.0', "genapp_action_first_item_sec has buckets that aren't cumulative"),
        (',le="+Inf"} 1.0', ',le="+Inf"} 2.0', "genapp_action_first_item_sec has a bucket +Inf that isn't its count"),
    ],
)
def test_histograms_have_to_add_up(before: str, after: str, message: str) -> None:
    text = histogram("genapp_action_first_item_sec", STREAMED).replace(before, after)
    assert [one.message for one in findings(text)] == [message]


def test_a_histogram_needs_its_buckets() -> None:
    text = "\n".join(
        line for line in histogram("genapp_action_first_item_sec", STREAMED).split("\n") if "bucket" not in line
    )
    assert codes(text) == ["MC508"]


def test_a_sum_may_be_anything_and_a_gauge_negative() -> None:
    text = f"# TYPE genapp_action_in_progress gauge\ngenapp_action_in_progress{{{STREAMED}}} -1\n"
    assert codes(text) == []
    assert codes(histogram("genapp_action_first_item_sec", STREAMED).replace("0.2", "NaN")) == []


def test_a_finding_stands_in_the_line_of_its_series() -> None:
    found = findings("# a comment\n" + counted("-1.0"))
    assert [(one.line, one.code) for one in found] == [(3, "MC509")]


def test_what_is_wrong_with_many_series_is_told_once() -> None:
    assert codes(counted("1.0", status="bad") + counted("1.0", status="bad", name="stop_handler")) == ["MC504"]


def test_warnings_are_told_from_faults() -> None:
    text = counted("1.0", name="{other}") + counted("1.0", name="Menu", status="bad")
    assert [(one.code, one.warning) for one in findings(text)] == [("MC504", False), ("MC511", True), ("MC512", True)]


@pytest.mark.parametrize(
    "text",
    [
        "<!doctype html><html></html>",
        "a{}}",
        'a{b="c" 1\n',
        "a{b=c} 1\n",
        "a one\n",
        "a 1\n# EOF\n# EOF\n",
        '# TYPE a counter\na_total{b="c"} 1 # {x\n# EOF\n',
        "# TYPE a b c d\n",
        'a{="b"} 1\n',
    ],
)
def test_what_is_no_page_is_a_finding(text: str) -> None:
    (found,) = findings(text, name="page.txt")
    assert found.code == "MC901"
    assert found.message.startswith("it isn't a page that Prometheus could read: ")


OWN = """\
# TYPE shop_orders_total counter
shop_orders_total{kind="new",instance="x"} 1
shop_orders_total{kind="old",size="big"} 1
# TYPE shop_unused_total counter
# TYPE shop_load gauge
shop_load 1
# TYPE shop_wait_seconds histogram
shop_wait_seconds_bucket{le="1.0"} 1
shop_wait_seconds_bucket{le="+Inf"} 1
shop_wait_seconds_sum 1
shop_wait_seconds_count 1
# TYPE shop_time_seconds summary
shop_time_seconds{quantile="0.5"} 1
shop_time_seconds_sum 1
shop_time_seconds_count 1
shop_untyped 1
"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (kind) (rate(shop_orders_total{kind="new", size="big"}[5m]))', []),
        ("sum by (any) (rate(shop_unused_total[5m]))", []),
        ("rate(shop_untyped[5m])", []),
        ("rate(shop_wait_seconds_count[5m]) + rate(shop_time_seconds_sum[5m])", []),
        ('shop_wait_seconds_bucket{le="1"}', []),
        ('shop_orders_total{instance="y"}', []),
        ("shop_order_total", ["MC101"]),
        ("node_load1", ["MC101"]),
        ("up", []),
        ("genapp_action_duration_sec_sum", []),
        ('shop_orders_total{knd="new"}', ["MC201"]),
        ("sum by (pod) (shop_load)", ["MC202"]),
        ('shop_orders_total{kind="nwe"}', ["MC303"]),
        ('shop_orders_total{kind=~"new|nwe|x.+"}', ["MC303"]),
        ('shop_wait_seconds_bucket{le="2"}', ["MC302"]),
        ("rate(shop_load[5m])", ["MC401"]),
        ("rate(shop_time_seconds[5m])", ["MC401"]),
    ],
)
def test_metrics_of_a_page_are_known(expression: str, expected: list[str]) -> None:
    assert codes(rule_file(expression), known_from(OWN)) == expected


def test_a_page_adds_to_what_is_known_of_ours() -> None:
    labels = 'method="GET",status="200",resource="items",app_type="search",env="dev",app="a"'
    text = (
        counted("1.0", env="dev", app="other")
        + f"# TYPE genapp_http_requests_total counter\ngenapp_http_requests_total{{{labels}}} 1\n"
        + histogram("genapp_action_duration_sec", STREAMED)
    )
    known = known_from(text)
    recorded = "app_env_name_status:genapp_action_count:rate5m"
    assert codes(rule_file('genapp_http_requests_total{app_type="search", status="500", env="prod"}'), known) == []
    assert codes(rule_file('genapp_action_count_total{status="cancelled", name="menu_handler", app="b"}'), known) == []
    assert codes(rule_file('genapp_action_count_total{name=~"menu_handlr|.+_task"}'), known) == ["MC303"]
    assert codes(rule_file(f'{recorded}{{name="menu_handlr"}}'), known) == ["MC303"]
    assert codes(rule_file('genapp_action_duration_sec_bucket{le="5"}'), known) == ["MC302"]
    assert codes(rule_file('genapp_http_request_duration_sec_bucket{le="5"}'), known) == []


def test_a_value_that_nothing_resembles_is_to_be_compared() -> None:
    (found,) = findings(rule_file('shop_orders_total{kind="zzz"}'), known_from(OWN))
    assert found.fix == "compare it with the page"
    (found,) = findings(rule_file('shop_orders_total{kind="nwe"}'), known_from(OWN))
    assert (found.fix, found.warning) == ("write 'new' if that is meant", True)


def test_every_type_of_prometheus_client_can_be_read(registry: CollectorRegistry) -> None:
    Gauge("shop_gauge", "A gauge.", registry=registry).set(math.nan)
    Summary("shop_summary", "A summary.", registry=registry).observe(1)
    Info("shop", "An info.", registry=registry).info({"version": "1"})
    for text in (generate_latest(registry).decode(), openmetrics(registry).decode()):
        known = known_from(text)
        assert codes(rule_file('shop_info{version="1"} * shop_gauge + rate(shop_summary_sum[5m])'), known) == []
