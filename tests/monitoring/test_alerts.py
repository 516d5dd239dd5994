"""Every alert on the real rule engine: it fires, it doesn't just below its threshold, and it resolves."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alert_scenes import ENDED, Ring, Scene, as_test, counted, observed
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    BACKEND_ERRORS,
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
    OVERFLOW,
    Metric,
)
from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Objectives, Options
from llm_common.monitoring.rules import (
    alert_groups,
    alert_rules_file,
    needed_for,
    recording_groups,
    recording_rules_file,
)
from servers import program

pytestmark = pytest.mark.once

OPTIONS = Options(runbooks="https://docs.example.org/metrics/")
ALERTS = {alert.name: alert for alert in alerts(OPTIONS)}
SHOP: dict[str, Any] = {"app": "shop_bot", "env": "prod"}
SERVED: dict[str, Any] = {**SHOP, "app_type": "app_api"}
LLM: dict[str, Any] = {**SHOP, "app_type": "llm"}


def action(name: str) -> dict[str, Any]:
    return {**SHOP, "name": name}


def fails(metric: Metric, bad: Mapping[str, float], good: float, fine: str = "ok", **labels: Any) -> dict[str, str]:
    """Ten good minutes, half an hour in which so many fail per minute on two instances, half an hour that is good."""
    found: dict[str, str] = {}
    for instance in ("one:8000", "other:8000"):
        for status, times in bad.items():
            found |= counted(metric, (0, 10), (times / 2, 30), (0, 30), instance=instance, status=status, **labels)
        phases = [(good / 2, minutes) for minutes in (10, 30, 30)]
        found |= counted(metric, *phases, instance=instance, status=fine, **labels)
    return found


def requests(bad: Mapping[str, float], good: float, **labels: Any) -> dict[str, str]:
    return fails(HTTP_REQUESTS, bad, good, "200", **{"method": "GET", "resource": "items", **labels})


def slow(
    metric: Metric, seconds: Mapping[float, float], bounds: tuple[float, ...] = (), **labels: Any
) -> dict[str, str]:
    """Ten minutes without anything, half an hour of these, half an hour without anything."""
    return observed(metric, seconds, (0, 10), (1, 30), (0, 30), bounds=bounds, **labels)


def served(seconds: Mapping[float, float], bounds: tuple[float, ...] = (), **labels: Any) -> dict[str, str]:
    return slow(HTTP_REQUEST_DURATION, seconds, bounds, **{"method": "GET", "status": "200", **SERVED, **labels})


def rings(*found: Ring) -> dict[str, list[Ring]]:
    """Where it begins after ten minutes and lasts half an hour: late enough, and no longer than that."""
    return {"18m": [], "30m": list(found), "60m": []}


QUIET: dict[str, list[Ring]] = {f"{minute}m": [] for minute in range(0, 70, 5)}


def error_share(share: str, name: str = "answer_llm_call") -> Ring:
    return Ring(
        action(name),
        f"shop_bot (prod): {name} fails too often",
        f"{share} of its runs end in an error, 5% are allowed. The log of the application says which errors, the "
        "dashboard Actions since when.",
    )


def slowness(name: str, duration: str) -> Ring:
    return Ring(
        action(name),
        f"shop_bot (prod): {name} is slow",
        f"It takes {duration} (95th percentile, or the mean). Allowed are 5s for handlers, 60s for LLM calls, 300s for "
        "agents, 3600s for tasks. Is what it calls slow, or is there more to do?",
    )


def slow_resource(resource: str, duration: str) -> Ring:
    return Ring(
        {**SERVED, "resource": resource},
        f"shop_bot (prod): {resource} is slow",
        f"It takes {duration} (95th percentile, or the mean), 3s are allowed. Is a dependency slow as well?",
    )


def stopped(name: str, pause: str) -> Ring:
    return Ring(
        action(name),
        f"shop_bot (prod): {name} doesn't run any more",
        f"It ran regularly, and for {pause} or longer no run has ended. Does its scheduler live, does a run hang, or "
        "was it removed?",
    )


def down(instance: str, who: str = "") -> Ring:
    labels = {"instance": instance, "job": "shop"} | ({} if not who else SHOP)
    return Ring(
        labels,
        f"{who}{instance} can't be scraped",
        f"Prometheus gets no metrics from {instance}, job shop. Does the process run, and does it serve its metrics "
        "there?",
    )


def crowded(labels: Mapping[str, str], what: str, rate: str) -> Ring:
    return Ring(
        labels,
        f"shop_bot (prod): too many {what}",
        f"What came after the limit is counted together as {OVERFLOW}, {rate} times a second. Is there data in a name "
        "or a path? The log has the first one that was too many.",
    )


def faulty(operation: str, times: str) -> Ring:
    return Ring(
        {**SHOP, "backend": "otel", "operation": operation},
        "shop_bot (prod): the metrics backend otel fails",
        f"{operation} failed {times} times within 15m. The application is not affected, but measurements are lost. Its "
        "log has the first fault with a traceback.",
    )


def ran(*phases: tuple[float, int], name: str = "reindex_task", end: str = "") -> dict[str, str]:
    return counted(ACTION_COUNT, *phases, status="ok", end=end, **action(name))


def every_day(*hours: tuple[int, int], days: int, name: str) -> dict[str, str]:
    """Once a minute between these hours of each day."""
    phases: list[tuple[float, int]] = []
    for _ in range(days):
        now = 0
        for begin, end in hours:
            phases += [(0, 60 * (begin - now)), (1, 60 * (end - begin))]
            now = end
        phases.append((0, 60 * (24 - now)))
    return ran(*(phase for phase in phases if phase[1]), name=name)


def born_again(runs: int, every: int, name: str) -> dict[str, str]:
    """Each run in a new process, whose counter is born with the value 1, seen for some minutes."""
    found: dict[str, str] = {}
    for number in range(runs):
        instance = f"pod-{number}:8000"
        found |= counted(
            ACTION_COUNT, late=number * every, end=f"1x2 {ENDED}", instance=instance, status="ok", **action(name)
        )
    return found


def failing(runs: int, every: int, name: str, late: int = 0) -> dict[str, str]:
    """Each run in a new process, whose counter is born with the value 1; of several, the first succeeds."""
    found: dict[str, str] = {}
    for number in range(runs):
        status = "ok" if runs > 1 and number == 0 else "error"
        found |= counted(
            ACTION_COUNT,
            late=late + number * every,
            end=f"1x2 {ENDED}",
            instance=f"pod-{number}:8000",
            status=status,
            **action(name),
        )
    return found


def only_failing(name: str) -> Ring:
    return Ring(
        action(name),
        f"shop_bot (prod): {name} only fails",
        "Its last runs ended in errors, and none in success: three or more within 6 hours, or all of the last day. The "
        "log of the application says which errors.",
    )


def used(*days: int, name: str = "menu_handler", per_minute: float = 3) -> dict[str, str]:
    """A handler that is used between 12 and 14 o'clock of these days of eight, and otherwise not."""
    phases: list[tuple[float, int]] = []
    for day in range(8):
        phases += [(0, 12 * 60), (per_minute if day in days else 0, 120), (0, 10 * 60)]
    return ran(*phases, name=name)


def traffic(name: str) -> Ring:
    return Ring(
        action(name),
        f"shop_bot (prod): nobody reaches {name}",
        "It ran 3 times a minute at this time of yesterday, and of last week too, but not once in the last 30 minutes. "
        "Does the application get updates, and do they lead there?",
    )


def errors(metric: Metric, app: str, *phases: tuple[float, int], total: float = 1000) -> dict[str, str]:
    """So many per minute in all, of which a share fails in each phase."""
    http = {"method": "POST", "resource": "items", **SERVED} if metric is HTTP_REQUESTS else action("menu_handler")
    labels = {**http, "app": app}
    good, bad = ("200", "502") if metric is HTTP_REQUESTS else ("ok", "error")
    return {
        **counted(metric, *((total * (1 - share), minutes) for share, minutes in phases), status=good, **labels),
        **counted(metric, *((total * share, minutes) for share, minutes in phases), status=bad, **labels),
    }


def burns(
    metric: Metric, first: tuple[float, float], second: tuple[float, float], speed: str, allowed: str
) -> list[Scene]:
    """Shares just above and just below what each pair of windows asks for."""
    (one, other), step, after = ((61, 361), "1m", 60) if speed == "fast" else ((1450, 4330), "10m", 720)
    above, below = first
    above_longer, below_longer = second

    def ring(app: str, share: float) -> Ring:
        labels = {**(SERVED if metric is HTTP_REQUESTS else SHOP), "app": app}
        percent = f"{100 * share:.4g}%"
        return Ring(
            labels,
            f"{app} (prod): the error budget burns {speed}",
            f"{percent} of all are errors; over 30 days the objective allows {allowed}. Which of them fail, and what "
            "was changed before?",
        )

    return [
        Scene(
            {
                **errors(metric, "much", (above, one), (0, other)),
                **errors(metric, "long", (above_longer, other), (0, after)),
                **errors(metric, "never", (below_longer, other), (0, after)),
                **errors(metric, "late", (0, other - one), (below, one), (0, after)),
                **errors(metric, "seldom", (above, one), (0, other), total=0.9),
            },
            {
                "0m": [],
                f"{one}m": [ring("much", above), ring("long", above_longer)],
                f"{other}m": [ring("long", above_longer)],
                f"{other + after}m": [],
            },
            step,
        )
    ]


SCENES: Mapping[str, list[Scene]] = {
    "ActionErrorShareHigh": [
        Scene(
            {
                **fails(ACTION_COUNT, {"error": 51, "cancelled": 400}, 549, **action("answer_llm_call")),
                **fails(ACTION_COUNT, {"error": 49}, 951, **action("search_llm_call")),
                **fails(ACTION_COUNT, {"error": 0.9}, 0, **action("seldom_handler")),
                **fails(ACTION_COUNT, {"error": 1.1}, 0, **action("often_handler")),
            },
            rings(error_share("5.1%"), error_share("100%", "often_handler")),
        ),
        Scene(fails(ACTION_COUNT, {"cancelled": 1000}, 1, **action("menu_handler")), QUIET),
    ],
    "ActionSlow": [
        Scene(
            {
                **slow(ACTION_DURATION, {4: 94, 9: 6}, **action("menu_handler")),
                **slow(ACTION_DURATION, {50: 93, 100: 7}, **action("answer_llm_call")),
                **slow(ACTION_DURATION, {200: 93, 500: 7}, **action("support_agent")),
                **slow(ACTION_DURATION, {30: 2}, (0.5, 1), **action("own_handler")),
                **slow(ACTION_DURATION, {4: 96, 9: 4}, **action("quick_handler")),
                **slow(ACTION_DURATION, {50: 96, 100: 4}, **action("quick_llm_call")),
                **slow(ACTION_DURATION, {200: 96, 500: 4}, **action("quick_agent")),
                **slow(ACTION_DURATION, {9: 0.9}, **action("seldom_handler")),
                **slow(ACTION_DURATION, {9000: 10}, **action("something_else")),
            },
            rings(
                slowness("menu_handler", "5.833s"),
                slowness("answer_llm_call", "1m 17s"),
                slowness("support_agent", "6m 25s"),
                slowness("own_handler", "30s"),
            ),
        ),
        Scene(
            {
                **observed(ACTION_DURATION, {7230.5: 1}, (0, 30), (1, 1), (0, 600), **action("nightly_task")),
                **observed(ACTION_DURATION, {3000: 1}, (0, 30), (1, 1), (0, 600), **action("quick_task")),
            },
            {
                "35m": [],
                "50m": [slowness("nightly_task", "2h 0m 30s")],
                "300m": [slowness("nightly_task", "2h 0m 30s")],
                "420m": [],
            },
        ),
    ],
    "AgentRunsCancelled": [
        Scene(
            {
                **fails(ACTION_COUNT, {"cancelled": 31, "error": 10}, 59, **action("support_agent")),
                **fails(ACTION_COUNT, {"cancelled": 29}, 71, **action("sales_agent")),
                **fails(ACTION_COUNT, {"cancelled": 0.9}, 0, **action("seldom_agent")),
                **fails(ACTION_COUNT, {"cancelled": 100}, 0, **action("menu_handler")),
            },
            rings(
                Ring(
                    action("support_agent"),
                    "shop_bot (prod): runs of support_agent are cancelled",
                    "31% of its runs are cancelled, 30% are allowed. Do users leave because it is slow, or is a "
                    "time-out too short?",
                )
            ),
        )
    ],
    "HttpErrorShareHigh": [
        Scene(
            {
                **requests({"500": 20, "503": 31}, 949, **SERVED),
                **requests({"500": 49, "404": 400}, 551, **{**SERVED, "app": "other_bot"}),
                **requests({"500": 400}, 600, **LLM),
            },
            rings(
                Ring(
                    SERVED,
                    "shop_bot (prod): too many responses are errors",
                    "5.1% of the requests are answered with a status of 500 or more, 5% are allowed. The dashboard "
                    "HTTP requests says which resources fail.",
                )
            ),
        )
    ],
    "HttpSlow": [
        Scene(
            {
                **served({2: 94, 4: 6}, resource="items/{item_id}"),
                **served({2: 96, 4: 4}, resource="items"),
                **served({30: 2}, (0.5, 1.0), resource="reports"),
                **served({30: 0.9}, resource="seldom"),
                **served({30: 10}, resource="elsewhere", app_type="llm"),
            },
            rings(slow_resource("items/{item_id}", "3.333s"), slow_resource("reports", "30s")),
        )
    ],
    "DependencyDown": [
        Scene(
            {
                **requests({"500": 11, "error": 20, "timeout": 20}, 49, **LLM),
                **requests({"502": 49, "404": 51}, 0, **SHOP, app_type="billing_api"),
                **requests({"cancelled": 100}, 0, **SHOP, app_type="telegram_api"),
                **requests({"error": 0.9}, 0, **SHOP, app_type="seldom_api"),
                **requests({"500": 100}, 0, **SERVED),
            },
            {
                "13m": [],
                "30m": [
                    Ring(
                        LLM,
                        "shop_bot (prod): llm is down",
                        "51% of the requests to it fail (a status of 500 or more, a time-out, no answer), 50% are "
                        "allowed. Is it down, or the way to it?",
                    )
                ],
                "60m": [],
            },
        )
    ],
    "TaskStopped": [
        Scene(  # also where the counter is still there, and where the whole application is gone
            {
                **ran((1, 240), (0, 120), (1, 100)),
                **ran((1, 240), name="gone_task", end=ENDED),
                **ran((1, 240), (0, 35), (1, 500), name="pausing_task"),
                **ran((1, 100), name="burst_task"),
                **ran((1, 240), (0, 240), name="tasks"),
            },
            {
                "240m": [],
                "280m": [],
                "310m": [stopped("reindex_task", "45m 0s"), stopped("gone_task", "45m 0s")],
                "366m": [stopped("gone_task", "45m 0s")],
                "450m": [],  # as long as it ran: it is forgotten
            },
        ),
        Scene(  # once an hour, each time in a new process, whose counter begins with that run
            born_again(40, 60, "hourly_task"),
            {"1000m": [], "39h": [], "41h": [], "43h": [stopped("hourly_task", "3h 0m 0s")]},
            "5m",
        ),
        Scene(  # at night, as the night before
            {
                **every_day((8, 19), days=3, name="office_task"),
                **every_day((0, 24), days=2, name="steady_task"),
            },
            {
                "44h": [],
                "45h": [],
                "47h": [],
                "50h": [stopped("steady_task", "45m 0s")],
                "68h": [stopped("steady_task", "3h 0m 0s")],
            },
            "10m",
        ),
        Scene(  # every day once, and a week's days of work
            {
                **born_again(10, 1440, "daily_task"),
                **every_day((3, 4), days=9, name="nightly_task"),
            },
            {
                "216h": [],
                "260h": [],
                "300h": [stopped("daily_task", "3d 0h 0m 0s"), stopped("nightly_task", "3d 0h 0m 0s")],
            },
            "10m",
        ),
    ],
    "TaskFails": [
        Scene(
            {
                **ran((1, 60), (0, 240)),
                **counted(ACTION_COUNT, (0, 60), (1, 100), (0, 140), status="error", **action("reindex_task")),
                **counted(ACTION_COUNT, (0, 160), (1, 140), status="ok", instance="new:8000", **action("reindex_task")),
                **ran((1, 300), name="flaky_task"),
                **counted(ACTION_COUNT, (9, 300), status="error", **action("flaky_task")),
                **counted(ACTION_COUNT, (1, 300), status="cancelled", **action("cancelled_task")),
                **counted(ACTION_COUNT, (1, 300), status="error", **action("menu_handler")),
            },
            {"60m": [], "100m": [], "155m": [only_failing("reindex_task")], "180m": []},
        ),
        Scene(  # each time in a new process; the first succeeds
            {
                **failing(25, 60, "hourly_task"),
                **failing(1, 0, "nightly_task", late=600),
                **ran((0, 599), (1, 1), (0, 1000), name="recovered_task"),
                **failing(1, 0, "recovered_task", late=300),
            },
            {
                "90m": [],
                "290m": [],
                "320m": [only_failing("recovered_task")],
                "380m": [only_failing("hourly_task"), only_failing("recovered_task")],
                "610m": [only_failing("hourly_task"), only_failing("nightly_task")],
                "2050m": [only_failing("hourly_task")],
                "3000m": [],
            },
        ),
    ],
    "HandlerTrafficVanished": [
        Scene(
            {
                **used(0, 6),
                **used(0, 6, 7, name="alive_handler"),
                **used(6, name="new_handler"),
                **used(0, name="old_handler"),
                **used(0, 6, name="seldom_handler", per_minute=0.9),
                # One single call, which is the first of a process that is new.
                **used(0, 6, name="restarted_handler"),
                **counted(ACTION_COUNT, instance="new:8000", status="ok", late=10_860, **action("restarted_handler")),
            },
            {
                "180h": [],
                "181h": [traffic("menu_handler")],
                "182h": [traffic("menu_handler"), traffic("restarted_handler")],
                "184h": [],
            },
            "10m",
        )
    ],
    "TargetDown": [
        Scene(
            {
                'up{app="shop_bot", env="prod", instance="one:8000", job="shop"}': "1x10 0x20 1x30",
                'up{instance="other:8000", job="shop"}': "1x10 0x20 1x30",
                'up{instance="pausing:8000", job="shop"}': "1x10 0x4 1x40",
            },
            {"15m": [], "17m": [down("one:8000", "shop_bot (prod) "), down("other:8000")], "40m": []},
        )
    ],
    "SeriesLimitReached": [
        Scene(
            {
                **counted(ACTION_COUNT, (60, 30), status="ok", end=ENDED, **action(OVERFLOW)),
                **counted(ACTION_COUNT, (60, 60), status="ok", **action("other")),
                **counted(
                    HTTP_REQUESTS,
                    *((0, 10), (30, 20)),
                    end=ENDED,
                    **{"method": OVERFLOW, "status": OVERFLOW, "resource": OVERFLOW, "app_type": OVERFLOW, **SHOP},
                ),
            },
            {
                "3m": [],
                "20m": [
                    crowded(action(OVERFLOW), "names of actions", "1"),
                    crowded({**SHOP, "app_type": OVERFLOW}, "HTTP series", "500m"),
                ],
                "50m": [],
            },
        )
    ],
    "BackendFails": [
        Scene(
            {
                **counted(BACKEND_ERRORS, (0, 20), (2, 10), (0, 60), backend="otel", operation="finished", **SHOP),
                **counted(BACKEND_ERRORS, late=30, backend="otel", operation="sized", end="1x60", **SHOP),
                **counted(BACKEND_ERRORS, (0, 90), backend="memory", operation="ended", **SHOP),
            },
            {
                "20m": [],
                "29m": [faulty("finished", "18")],
                "40m": [faulty("finished", "10"), faulty("sized", "1")],
                "60m": [],
            },
        )
    ],
    "ActionBudgetBurnsFast": burns(ACTION_COUNT, (0.15, 0.14), (0.061, 0.059), "fast", "1%"),
    "HttpBudgetBurnsFast": burns(HTTP_REQUESTS, (0.08, 0.07), (0.031, 0.029), "fast", "0.5%"),
    "ActionBudgetBurnsSlowly": burns(ACTION_COUNT, (0.031, 0.029), (0.011, 0.009), "slowly", "1%"),
    "HttpBudgetBurnsSlowly": burns(HTTP_REQUESTS, (0.016, 0.014), (0.0051, 0.0049), "slowly", "0.5%"),
}


def promtool(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rules(directory: Path, options: Options) -> list[str]:
    (directory / "recording.yml").write_text(recording_rules_file())
    (directory / "alerts.yml").write_text(alert_rules_file(options))
    return ["recording.yml", "alerts.yml"]


@pytest.mark.parametrize("name", [*ALERTS])
def test_an_alert_fires_and_does_not_just_below_and_resolves(name: str, tmp_path: Path) -> None:
    groups = needed_for(name, [*alert_groups(OPTIONS), *recording_groups()])
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups}))
    for number, scene in enumerate(SCENES[name]):
        tests = {
            "rule_files": ["rules.json"],
            "evaluation_interval": scene.step,
            "group_eval_order": [group["name"] for group in groups],
            "tests": [as_test(f"{name} {number}", ALERTS[name], scene)],
        }
        (tmp_path / f"{number}.json").write_text(json.dumps(tests))
    promtool(tmp_path, "test", "rules", *(f"{number}.json" for number in range(len(SCENES[name]))))
    first, *later = SCENES[name][0].expected.values()
    assert first == []
    assert any(later)
    assert later[-1] == []


def test_no_scene_is_left_of_an_alert_that_is_gone() -> None:
    assert SCENES.keys() == ALERTS.keys()


@pytest.mark.parametrize("options", [OPTIONS, Options(objectives=Objectives(0.5, 0.9999))])
def test_the_rules_are_right_for_promtool_without_any_remark(options: Options, tmp_path: Path) -> None:
    shown = promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", *write_rules(tmp_path, options))
    assert f"{len(alerts(options))} rules found" in shown
