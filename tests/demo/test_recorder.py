import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common import http_tracking
from llm_common.contract import HttpSeries, Status
from llm_common.demo.recorder import ActionFigures, DemoRecorder, HttpFigures, by_route
from llm_common.dispatch import override
from llm_common.prometheus import action_tracking


def figures(*durations: float) -> ActionFigures:
    action = ActionFigures("menu_handler", 0)
    for seconds in durations:
        action.finished(Status.OK, seconds)
    action.update()
    return action


def test_the_figures_follow_what_is_tracked() -> None:
    recorder = DemoRecorder()
    with override(backends=(recorder,)):
        with action_tracking("report_task") as tracker:
            tracker.size(2)
            tracker.size(3)
        with action_tracking("report_task") as tracker:
            tracker.to_fail()
        with action_tracking("menu_handler"):
            pass
    menu, report = recorder.actions()
    assert (menu.name, menu.total, menu.error_share, menu.size) == ("menu_handler", 1, 0.0, None)
    assert (report.name, report.total, report.error_share, report.size) == ("report_task", 2, 0.5, 5)
    assert report.counts == {Status.OK: 1, Status.ERROR: 1}
    assert sum(report.per_second.values()) == 2


def test_reading_twice_counts_nothing_twice() -> None:
    recorder = DemoRecorder()
    recorder.llm_common_bind_action("menu_handler").finished(Status.OK, 1)
    assert recorder.actions()[0].total == recorder.actions()[0].total == 1


def test_an_action_is_bound_to_the_same_figures_each_time() -> None:
    recorder = DemoRecorder()
    assert recorder.llm_common_bind_action("menu_handler") is recorder.llm_common_bind_action("menu_handler")


def test_no_measurement_is_lost_among_threads() -> None:
    recorder = DemoRecorder()
    action = recorder.llm_common_bind_action("menu_handler")

    def work() -> None:
        for _ in range(2_000):
            action.finished(Status.OK, 0.1)
            action.sized(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.actions()
    assert recorder.actions()[0].total == 8_000
    assert action.size == 8_000


def test_an_action_that_has_not_ended_has_no_quantile_and_no_errors() -> None:
    assert math.isnan(figures().quantile(0.5))
    assert figures().error_share == 0


@pytest.mark.parametrize(("share", "seconds"), [(0.5, 2), (0.75, 3), (0.95, 4), (1, 4)])
def test_a_quantile_is_the_duration_that_so_many_did_not_exceed(share: float, seconds: float) -> None:
    assert figures(4, 1, 3, 2).quantile(share) == seconds


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_at_least_the_share_asked_for_lies_at_or_below_a_quantile(durations: list[float], share: float) -> None:
    quantile = figures(*durations).quantile(share)
    assert quantile in durations
    assert sum(seconds <= quantile for seconds in durations) >= share * len(durations) - 1e-6


def test_http_exchanges_are_kept_by_series_those_that_are_served_first() -> None:
    recorder = DemoRecorder()
    with override(backends=(recorder,), strict=True):
        http_tracking("llm", "/v1/chat/completions", "POST", 5, "cancelled", 0.5, 7)
        http_tracking("app_api", "/orders", "GET", 10, 404, 0.5, 0)
        for size in (1, 2):
            http_tracking("app_api", "/orders", "GET", size, 200, 0.25, size)
        http_tracking("app_api", "/articles", "GET", 10, 200, 0.5, 0)
    found = [(*one.series, one.total, one.request_bytes, one.response_bytes) for one in recorder.exchanges()]
    assert found == [
        ("GET", "200", "articles", "app_api", 1, 0, 10),
        ("GET", "200", "orders", "app_api", 2, 3, 3),
        ("GET", "404", "orders", "app_api", 1, 0, 10),
        ("POST", "cancelled", "v1/chat/completions", "llm", 1, 7, 5),
    ]
    assert sum(one.total for one in recorder.exchanges()) == 5


def test_a_series_is_bound_to_the_same_figures_each_time() -> None:
    recorder = DemoRecorder()
    series = HttpSeries("GET", "200", "orders", "app_api")
    assert recorder.llm_common_bind_http(series) is recorder.llm_common_bind_http(series)


def test_a_route_is_all_its_statuses_together() -> None:
    exchanges = []
    for resource, status, seconds in (
        *(("orders", "200", 0.25), ("orders", "404", 2), ("orders", "499", 1), ("orders", "timeout", 4)),
        ("questions", "503", 3),
    ):
        exchanges.append(HttpFigures(HttpSeries("GET", status, resource, "app_api"), 0))
        exchanges[-1].finished(seconds, 0, 0)
        exchanges[-1].update()
    orders, questions = by_route(exchanges)
    assert (orders.app_type, orders.method, orders.resource) == ("app_api", "GET", "orders")
    assert orders.counts == {"2": 1, "4": 2, "": 1}
    assert (orders.total, orders.quantile(0.5), orders.quantile(1)) == (4, 1, 4)
    assert (questions.resource, questions.total, questions.quantile(0.5)) == ("questions", 1, 3)


def test_the_clock_begins_again_where_it_is_told_to() -> None:
    recorder = DemoRecorder()
    before = recorder.elapsed
    recorder.begin()
    assert recorder.elapsed >= 0
    assert before >= 0
