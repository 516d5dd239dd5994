"""Actions whose beginning and end are different callbacks."""

import asyncio
import contextvars
import logging
from threading import Barrier, Thread
from typing import Any

import pytest

from llm_common import current_action
from llm_common.integrations import open_action
from llm_common.integrations.open_action import UNKNOWN_MODEL, OpenAction, covering, named
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


# What covers the calls of clients


def test_it_covers_the_calls_of_clients_from_cover_to_uncover(recorded_metrics: RecordedMetrics) -> None:
    action = OpenAction("answer_llm_call")
    assert covering() is None
    action.cover()
    assert covering() is action
    action.uncover()
    assert covering() is None
    action.end()


def test_one_that_has_ended_covers_nothing_wherever_it_ended(recorded_metrics: RecordedMetrics) -> None:
    action = OpenAction("answer_llm_call")
    action.cover()
    contextvars.copy_context().run(action.end)
    assert covering() is None


def test_to_cover_keeps_nothing_alive(recorded_metrics: RecordedMetrics) -> None:
    OpenAction("answer_llm_call").cover()
    assert covering() is None
    recorded_metrics.assert_action("answer_llm_call", status="cancelled")


def test_it_covers_again_what_is_called_after_another_inside_of_it(recorded_metrics: RecordedMetrics) -> None:
    def scenario() -> None:
        outer = OpenAction("answer_llm_call")
        outer.cover()
        for _ in range(3):
            inner = OpenAction("check_llm_call")
            inner.cover()
            assert covering() is inner
            inner.end()
            del inner
            assert covering() is outer
        cover = open_action.COVERING.get()
        assert cover is not None
        assert cover.around is not None
        assert cover.around.around is None, "it grows with each action inside"
        outer.end()
        assert covering() is None

    contextvars.Context().run(scenario)


def test_it_covers_nothing_while_an_exception_is_handled_that_may_have_ended_it(
    recorded_metrics: RecordedMetrics,
) -> None:
    try:
        raise LookupError
    except LookupError:
        action = OpenAction("answer_llm_call")
        action.cover()
        assert covering() is action
        try:
            raise TimeoutError
        except TimeoutError:
            assert covering() is None
    assert covering() is action
    action.end()


# Names


@pytest.fixture
def no_hints_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_action, "HINTED", set())


@pytest.mark.usefixtures("no_hints_yet")
def test_a_name_without_letters_of_ascii_is_hinted_at_once_for_each_parameter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "llm_common"):
        assert named("Поддержка", "_agent", "track(agent=…)") == "unnamed_agent"
        assert named("Склад", "_agent", "track(agent=…)") == "unnamed_agent"
        assert named("Поддержка", "_llm_call", "track(llm_call=…)") == "unnamed_llm_call"
        assert named("Поддержка 2", "_agent", "track(name=…)") == "2_agent"
    first, second = [record.getMessage() for record in caplog.records]
    assert first == (
        "'Поддержка' has no letter or digit of ASCII, of which the names of actions are made, so it is counted as "
        "unnamed_agent; name it with track(agent=…)"
    )
    assert second.endswith("unnamed_llm_call; name it with track(llm_call=…)")
