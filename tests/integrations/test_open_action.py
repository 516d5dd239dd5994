"""Actions whose beginning and end are different callbacks."""

import asyncio
from threading import Barrier, Thread
from typing import Any

import pytest

from llm_common import current_action
from llm_common.integrations.open_action import UNKNOWN_MODEL, OpenAction
from llm_common.testing import ActionEvent, RecordedMetrics
from llm_common.tracking import action_tracking


def test_it_ends_once(recorded_metrics: RecordedMetrics) -> None:
    action = OpenAction("answer_llm_call")
    action.end(ValueError("no"))
    action.end()
    action.cancel()
    action.fail("late")
    action.first_item()
    assert recorded_metrics.events == [ActionEvent("answer_llm_call", status="error")]


def test_it_ends_once_whichever_threads_end_it(recorded_metrics: RecordedMetrics) -> None:
    action, at_once = OpenAction("answer_llm_call"), Barrier(4)

    def end() -> None:
        at_once.wait()
        action.end()

    threads = [Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded_metrics.assert_action("answer_llm_call", times=1)


def test_one_that_nobody_holds_any_more_is_cancelled(recorded_metrics: RecordedMetrics) -> None:
    OpenAction("answer_llm_call")
    assert recorded_metrics.events == [ActionEvent("answer_llm_call", status="cancelled")]
    assert recorded_metrics.metric_value("genapp_action_in_progress", name="answer_llm_call") == 0


@pytest.mark.parametrize(
    ("exception", "status"), [(None, "ok"), (ValueError(), "error"), (asyncio.CancelledError(), "cancelled")]
)
def test_it_ends_as_its_exception_has_it(
    recorded_metrics: RecordedMetrics, exception: BaseException | None, status: str
) -> None:
    OpenAction("answer_llm_call").end(exception)
    recorded_metrics.assert_action("answer_llm_call", status=status)


def test_one_that_failed_is_an_error(recorded_metrics: RecordedMetrics) -> None:
    action = OpenAction("answer_llm_call")
    action.fail("overloaded")
    action.end()
    assert [event.error_name for event in recorded_metrics.events] == ["overloaded"]
    recorded_metrics.assert_action("answer_llm_call", status="error")


def test_it_is_never_the_current_action(recorded_metrics: RecordedMetrics) -> None:
    with action_tracking("menu_handler") as outer:
        action = OpenAction("answer_llm_call")
        assert current_action() is outer
        action.end()
        assert current_action() is outer


@pytest.mark.parametrize(
    ("used", "recorded"),
    [
        (("small", 3, 4), ("small", 3, 4)),
        (("small", None, "four"), ("small", 0, 0)),
        (("small", -3, 4), ("small", 0, 4)),
        ((None, 3, 4), (UNKNOWN_MODEL, 3, 4)),
        (("", 3, 4), (UNKNOWN_MODEL, 3, 4)),
    ],
)
def test_the_last_word_on_tokens_counts(recorded_metrics: RecordedMetrics, used: Any, recorded: Any) -> None:
    action = OpenAction("answer_llm_call")
    action.used("tiny", 1, 1)
    action.used(*used)
    action.end()
    model, given, said = recorded
    assert recorded_metrics.metric_value("genapp_llm_tokens_total", model=model, token_type="input") == given
    assert recorded_metrics.metric_value("genapp_llm_tokens_total", model=model, token_type="output") == said
    assert recorded_metrics.metric_value("genapp_llm_tokens_total") == given + said
