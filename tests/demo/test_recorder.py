import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.contract import Status
from llm_common.demo.recorder import ActionFigures, DemoRecorder
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
    menu, report = recorder.figures()
    assert (menu.name, menu.total, menu.error_share, menu.size) == ("menu_handler", 1, 0.0, None)
    assert (report.name, report.total, report.error_share, report.size) == ("report_task", 2, 0.5, 5)
    assert report.counts == {Status.OK: 1, Status.ERROR: 1}
    assert sum(report.per_second.values()) == 2


def test_reading_twice_counts_nothing_twice() -> None:
    recorder = DemoRecorder()
    recorder.llm_common_bind_action("menu_handler").finished(Status.OK, 1)
    assert recorder.figures()[0].total == recorder.figures()[0].total == 1


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
        recorder.figures()
    assert recorder.figures()[0].total == 8_000
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


def test_the_clock_begins_again_where_it_is_told_to() -> None:
    recorder = DemoRecorder()
    before = recorder.elapsed
    recorder.begin()
    assert recorder.elapsed >= 0
    assert before >= 0
