"""What a test recorded rings, or doesn't, on the real rule engine."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_common import action_tracking, http_tracking
from llm_common.errors import ConfigurationError
from llm_common.monitoring.options import Options, Thresholds
from llm_common.monitoring.rules import alert_rules_file, recording_rules_file
from llm_common.testing import RecordedMetrics, record_metrics
from servers import program

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _promtool() -> None:
    program("promtool")


def run(name: str, times: int = 1, *, failing: int = 0) -> None:
    for number in range(times):
        with action_tracking(name) as tracker:
            if number < failing:
                tracker.to_fail("because")


def request(app_type: str, status: int | str, seconds: float = 0.1, times: int = 1) -> None:
    for _ in range(times):
        http_tracking(app_type, "/items/1", "GET", 1, status, seconds, 0)


def test_one_failing_action_rings_after_as_long_as_the_rule_waits(recorded_metrics: RecordedMetrics) -> None:
    run("answer_llm_call", failing=1)
    recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m")
    recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="1h", name="answer_llm_call")
    recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="9m")
    recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="10m", every="2m")
    recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="10m", name="menu_handler")
    recorded_metrics.assert_alert_silent("AgentRunsCancelled", for_="10m")


def test_what_stays_below_the_threshold_is_silent(recorded_metrics: RecordedMetrics) -> None:
    run("menu_handler", 21, failing=1)
    recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="1h")
    strict = Options(thresholds=Thresholds(action_error_share=0.04))
    recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m", options=strict)


def test_durations_ring_by_their_buckets(recorded_metrics: RecordedMetrics) -> None:
    request("app_api", 200, seconds=7)
    recorded_metrics.assert_alert_fires("HttpSlow", for_="10m", every="30s", resource="items/{int}")
    recorded_metrics.assert_alert_silent(
        "HttpSlow", for_="10m", options=Options(thresholds=Thresholds(http_seconds=10))
    )


def test_a_dependency_that_does_not_answer_rings(recorded_metrics: RecordedMetrics) -> None:
    request("llm", "timeout", times=2)
    request("llm", 200)
    recorded_metrics.assert_alert_fires("DependencyDown", for_="5m", app_type="llm")
    recorded_metrics.assert_alert_silent("HttpErrorShareHigh", for_="10m")


def test_budgets_ring_by_long_windows(recorded_metrics: RecordedMetrics) -> None:
    run("menu_handler", 50, failing=1)
    recorded_metrics.assert_alert_silent("ActionBudgetBurnsFast", for_="2m")
    recorded_metrics.assert_alert_fires("ActionBudgetBurnsSlowly", for_="15m")


@pytest.mark.parametrize(("every", "silent", "fires"), [("1m", "40m", "1h"), ("30m", "2h", "4h")])
def test_silence_rings_about_what_happened_before(every: str, silent: str, fires: str) -> None:
    with record_metrics() as recorded:
        run("reindex_task")
    recorded.assert_alert_silent("TaskStopped", for_=silent, every=every)
    recorded.assert_alert_fires("TaskStopped", for_=fires, every=every)


def test_a_handler_that_nobody_reaches_any_more_rings(recorded_metrics: RecordedMetrics) -> None:
    run("menu_handler", 2)
    recorded_metrics.assert_alert_fires("HandlerTrafficVanished", for_="45m")
    recorded_metrics.assert_alert_silent("HandlerTrafficVanished", for_="25m")


def test_a_failure_says_what_the_condition_came_to_what_was_allowed_and_what_was_recorded(
    recorded_metrics: RecordedMetrics,
) -> None:
    run("menu_handler", 50, failing=1)
    request("llm", 200)
    with pytest.raises(AssertionError) as caught:
        recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="9m", name="menu_handler")
    place = re.search(r'app="\w+", env="\w+"', str(caught.value))
    assert place
    assert str(caught.value).splitlines() == [
        "expected the alert ActionErrorShareHigh, name='menu_handler' to fire for_=9m; it doesn't",
        f'the condition came to: {{{place[0]}, name="menu_handler"}} 0.02',
        "action_error_share = 0.05",
        "min_per_minute = 1",
        "the rule waits for 10m, which is longer than 9m",
        "recorded, and taken to happen every 1m:",
        "  menu_handler  error      once (because)",
        "  menu_handler  ok         49 times",
        "  llm  GET items/{int}  200  once",
    ]
    run("menu_handler", 9, failing=9)
    with pytest.raises(AssertionError) as caught:
        recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="10m")
    assert str(caught.value).splitlines()[0] == (
        "expected the alert ActionErrorShareHigh not to fire for_=10m; it fires: "
        f'{{{place[0]}, name="menu_handler", severity="warning"}} 1E+00'
    )


def test_one_part_of_a_test_is_judged_alone(recorded_metrics: RecordedMetrics) -> None:
    run("menu_handler", failing=1)
    with recorded_metrics.delta() as later:
        run("menu_handler")
    later.assert_alert_silent("ActionErrorShareHigh", for_="10m")


@pytest.mark.parametrize("name", ['<b>&"\\\n', "{{ $labels }}", "\x00\x7f\x85\ufffe", "😀\u202e\u2028", "} 5, {"])
def test_any_name_reaches_the_rules(name: str, recorded_metrics: RecordedMetrics) -> None:
    run(name, failing=1)
    recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m", name=name)


@pytest.mark.parametrize("place", ["folder", "file"])
def test_rules_of_a_team_are_evaluated_instead(place: str, tmp_path: Path, recorded_metrics: RecordedMetrics) -> None:
    lax = alert_rules_file(Options(thresholds=Thresholds(action_error_share=0.6)))
    own = "- name: own\n  rules: [{alert: Own, expr: 'sum by (name) (genapp_action_in_progress) == 0'}]\n"
    empty = tmp_path / "empty.yml"
    empty.write_text("")
    if place == "folder":
        (tmp_path / "alerts.yaml").write_text(lax + own)
        (tmp_path / "recording.yml").write_text(recording_rules_file())
        rules = tmp_path
    else:
        rules = tmp_path / "all.rules"
        rules.write_text(lax + own + recording_rules_file().removeprefix("groups:\n"))
    run("menu_handler", 2, failing=1)
    with pytest.raises(AssertionError, match=r"the condition came to.* 0.5\nthe rule: sum by") as caught:
        recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m", rules=rules)
    assert "> 0.6" in str(caught.value)
    run("menu_handler", 2, failing=2)
    recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m", rules=str(rules))
    recorded_metrics.assert_alert_fires("Own", for_="0m", rules=rules)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            lambda one: one.assert_alert_fires("ActionErrorShareHi", for_="10m"),
            r"there is no alert 'ActionErrorShareHi'; did you mean 'ActionErrorShareHigh'\? \(known: ActionErrorShare",
        ),
        (lambda one: one.assert_alert_fires("x", for_="10m"), r"there is no alert 'x' \(known: Action"),
        (lambda one: one.assert_alert_fires("HttpSlow", for_="10m"), "nothing was recorded that HttpSlow asks for"),
        (lambda one: one.assert_alert_silent("TargetDown", for_="10m"), r"TargetDown asks for.*the rule: up == 0"),
        (lambda one: one.assert_alert_fires("ActionSlow", for_="10"), "for_ is '10'; accepted: a duration such as 90s"),
        (lambda one: one.assert_alert_fires("ActionSlow", for_=10), "for_ is 10; accepted"),
        (
            lambda one: one.assert_alert_fires("ActionSlow", for_="1h", every="0s"),
            "every is '0s'; accepted: .* above 0",
        ),
        (
            lambda one: one.assert_alert_fires("TaskStopped", for_="1h", every="1w"),
            "every is '1w'; what happens less often than 1d is never missed",
        ),
        (
            lambda one: one.assert_alert_fires("ActionSlow", for_="1h", rules="rules.yml", options=Options()),
            "give either options or rules, not both",
        ),
        (
            lambda one: one.assert_alert_fires("ActionSlow", for_="1h", rules="nowhere"),
            "rules is 'nowhere'; accepted: a file of rules, or a folder",
        ),
        (
            lambda one: one.assert_alert_silent("TaskFails", for_="1h", nam="reindex_task"),
            r"TaskFails has no label 'nam'; did you mean 'name'\? \(known: app, .*name, severity, status\)",
        ),
    ],
)
def test_a_mistake_says_how_to_mend_it(
    call: Callable[[RecordedMetrics], None], problem: str, recorded_metrics: RecordedMetrics
) -> None:
    run("reindex_task")
    with pytest.raises(ConfigurationError, match=problem):
        call(recorded_metrics)


def test_a_label_that_is_no_text_is_named(recorded_metrics: RecordedMetrics) -> None:
    run("menu_handler")
    with pytest.raises(TypeError, match="the label name must be a string, not 5"):
        recorded_metrics.assert_alert_silent("ActionSlow", for_="1h", name=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"groups: [", r"rules\.yml can't be read as rules: .*; 'promtool check rules .*rules\.yml' says more"),
        (b"\xff", "can't be read as rules"),
        (b"- a", "can't be read as rules"),
        (b"groups: 5", "can't be read as rules"),
        (b"groups: [a]", "can't be read as rules"),
        (b"groups: [{name: a, rules: [{alert: A}]}]", "can't be read as rules: KeyError\\('expr'\\)"),
        (b"services: {}", "there are no rules in .*; of an export they are in prometheus/rules"),
        (b"groups: [{name: a}]", r"there is no alert 'ActionSlow' \(known: none\)"),
        (
            b"groups: [{name: a, rules: [{alert: ActionSlow, expr: 1}]}]",
            "nothing was recorded that ActionSlow asks for",
        ),
    ],
)
def test_a_file_that_has_no_rules_to_evaluate_is_named(
    text: bytes, problem: str, tmp_path: Path, recorded_metrics: RecordedMetrics
) -> None:
    run("menu_handler")
    (tmp_path / "rules.yml").write_bytes(text)
    with pytest.raises(ConfigurationError, match=f"(?s){problem}"):
        recorded_metrics.assert_alert_fires("ActionSlow", for_="1h", rules=tmp_path)


def test_a_missing_promtool_is_named_with_its_package(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("menu_handler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match=r"promtool is missing.*apt-get install prometheus"):
        recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m")


def test_what_promtool_can_not_evaluate_is_shown(
    recorded_metrics: RecordedMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("menu_handler")
    broken = tmp_path / "broken.yml"
    broken.write_text("groups: [{name: own, rules: [{alert: Own, expr: 'genapp_action_count_total >'}]}]")
    with pytest.raises(ConfigurationError, match=r"promtool can't evaluate the rules:(.|\n)*could not parse"):
        recorded_metrics.assert_alert_fires("Own", for_="10m", rules=broken)


def test_rules_in_files_need_the_extra(recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    run("menu_handler")
    monkeypatch.setitem(sys.modules, "yaml", None)
    recorded_metrics.assert_alert_silent("ActionErrorShareHigh", for_="10m")
    with pytest.raises(
        ConfigurationError, match=r"needs PyYAML; install it with: pip install 'llm_common\[monitoring\]'"
    ):
        recorded_metrics.assert_alert_fires("ActionErrorShareHigh", for_="10m", rules="rules.yml")
