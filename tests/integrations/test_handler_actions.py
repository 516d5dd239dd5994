"""What integrations with bots share."""

from functools import partial
from typing import Any

import pytest

from llm_common import action_tracking_decorator, current_action
from llm_common.integrations.handler_actions import HandlerAction, action_name
from llm_common.testing import ActionEvent, RecordedMetrics


class PassedOnError(Exception):
    pass


class MenuShown:
    def __call__(self) -> None:
        pass

    def close(self) -> None:
        pass


class Decorated:
    @action_tracking_decorator("called_task")
    def __call__(self) -> None:
        pass

    @action_tracking_decorator("closed_task")
    def close(self) -> None:
        pass


class Unreadable:
    """A callable that answers no question about itself."""

    @property
    def __wrapped__(self) -> Any:
        raise ZeroDivisionError

    def __call__(self) -> None:
        pass


def menu() -> None:
    pass


def _2fa() -> None:
    pass


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (menu, "menu_handler"),
        (_2fa, "unnamed_2fa_handler"),
        (partial(partial(menu)), "menu_handler"),
        (MenuShown(), "menu_shown_handler"),
        (MenuShown, "menu_shown_handler"),
        (MenuShown().close, "close_handler"),
        (Unreadable(), "unnamed_handler"),
    ],
)
def test_an_action_is_named_after_what_is_called(callback: Any, name: str) -> None:
    assert action_name(callback, "_handler") == name


@pytest.mark.parametrize(
    "callback",
    [
        action_tracking_decorator("menu_task")(menu),
        partial(action_tracking_decorator("menu_task")(menu)),
        action_tracking_decorator("menu_task")(partial(menu)),
        action_tracking_decorator("menu_task")(MenuShown()),
        Decorated(),
        partial(Decorated()),
        Decorated().close,
    ],
)
def test_what_is_decorated_by_hand_has_no_name_here(callback: Any) -> None:
    assert action_name(callback, "_handler") is None


@pytest.mark.parametrize(
    ("raised", "status"),
    [(PassedOnError("on"), "ok"), (ValueError("broken"), "error"), (KeyboardInterrupt(), "cancelled")],
)
def test_what_is_raised_passes_through_and_control_flow_is_no_error(
    raised: BaseException, status: str, recorded_metrics: RecordedMetrics
) -> None:
    with pytest.raises(type(raised)) as caught, HandlerAction("menu_handler", PassedOnError):
        raise raised
    assert caught.value is raised
    assert recorded_metrics.events == [ActionEvent("menu_handler", status=status)]


def test_an_action_that_was_failed_stays_an_error_where_control_flow_ends_it(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(PassedOnError), HandlerAction("menu_handler", (PassedOnError, KeyError)) as tracker:
        assert current_action() is tracker
        tracker.to_fail("refused")
        raise PassedOnError
    assert recorded_metrics.events == [ActionEvent("menu_handler", status="error")]
