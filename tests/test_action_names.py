from collections.abc import Callable
from functools import partial, partialmethod, wraps
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common import action_tracking_decorator
from llm_common.action_names import HANDLER, SUFFIXES, TASK, end_of, name_of, snake_case, with_suffix
from llm_common.decorator import tracked_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("menu", "menu"),
        ("MenuHandler", "menu_handler"),
        ("HTTPServer2Go", "http_server2_go"),
        ("menu-handler", "menu_handler"),
        ("shop.tasks.send", "shop_tasks_send"),
        ("__call__", "call"),
        ("Support Agent", "support_agent"),
        ("кнопка", ""),
    ],
)
def test_a_name_is_written_in_snake_case(text: str, name: str) -> None:
    assert snake_case(text) == name


@pytest.mark.parametrize(
    ("text", "suffix", "name"),
    [
        ("menu", HANDLER, "menu_handler"),
        ("menu_handler", HANDLER, "menu_handler"),
        ("Handler", HANDLER, "handler"),
        ("menu_handlers", HANDLER, "menu_handlers_handler"),
        ("cleanup", TASK, "cleanup_task"),
        ("кнопка", HANDLER, "unnamed_handler"),
    ],
)
def test_a_suffix_stands_there_once(text: str, suffix: str, name: str) -> None:
    assert with_suffix(text, suffix) == name


@given(st.text(), st.sampled_from(SUFFIXES))
def test_any_text_makes_a_name_that_stays_as_it_is(text: str, suffix: str) -> None:
    name = with_suffix(text, suffix)
    assert name == snake_case(name)
    assert with_suffix(name, suffix) == name


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        ("send", "send"),
        ("shop.tasks.send", "send"),
        ("shop.tasks.SendMail", "send_mail"),
        ("shop.user.42", "user_42"),
        ("shop.user.4.2", "user_4_2"),
        ("shop.2fa", "shop_2fa"),
        ("shop.кнопка", "shop"),
        ("_2fa", "unnamed_2fa"),
        ("4.2", "unnamed_4_2"),
        ("кнопка", "unnamed"),
        ("", "unnamed"),
    ],
)
def test_a_dotted_name_ends_with_what_begins_with_a_letter(dotted: str, name: str) -> None:
    assert snake_case(end_of(dotted)) == name


@given(st.text())
def test_the_end_of_any_text_begins_with_a_letter(text: str) -> None:
    assert snake_case(end_of(text))[0].isalpha()


def menu(*_: Any) -> None: ...


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


class Menu:
    def opened(self, *_: Any) -> None: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (menu, "menu"),
        (partial(menu, 1), "menu"),
        (partial(passed_on(partial(menu, 1)), 1), "menu"),
        (passed_on(menu), "menu"),
        (Menu().opened, "opened"),
        (Menu(), "Menu"),
        (Menu, "Menu"),
        (lambda: None, "lambda"),
        (partialmethod(menu), "menu"),
    ],
)
def test_a_callable_is_called_by_its_own_name(target: Any, name: str) -> None:
    assert name_of(target) == name


def test_what_is_decorated_tells_its_action_and_nothing_else_does() -> None:
    decorate = action_tracking_decorator("menu_handler")
    for target in (menu, partial(menu, 1), Menu().opened, Menu(), passed_on(menu)):
        assert tracked_name(target) is None
        assert tracked_name(decorate(target)) == "menu_handler"
        assert tracked_name(partial(passed_on(decorate(target)), 1)) == "menu_handler"
    assert tracked_name(Menu) is None
    assert tracked_name(Mock()) is None
    around = passed_on(menu)
    around.__wrapped__ = around  # type: ignore[attr-defined]
    assert tracked_name(around) is None


def test_coroutines_generators_and_methods_tell_it_too() -> None:
    class Bot:
        @action_tracking_decorator("menu_handler")
        async def menu(self) -> None: ...

        @action_tracking_decorator("stream_llm_call")
        def stream(self) -> Any:
            yield

        @action_tracking_decorator("astream_llm_call")
        async def astream(self) -> Any:
            yield

        @classmethod
        @action_tracking_decorator("cls_handler")
        def of_class(cls) -> None: ...

        @action_tracking_decorator("static_handler")
        @staticmethod
        def static() -> None: ...

    bot = Bot()
    found = [tracked_name(one) for one in (bot.menu, bot.stream, bot.astream, bot.of_class, bot.static)]
    assert found == ["menu_handler", "stream_llm_call", "astream_llm_call", "cls_handler", "static_handler"]
