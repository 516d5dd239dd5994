"""What type checkers must see in code that uses the facade; each assertion is checked by mypy and pyright."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import assert_type

from llm_common import ActionTracker, action_tracking, action_tracking_decorator, configure, current_action
from llm_common.prometheus import MetricsServer, render_metrics, start_metrics_server
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics

with action_tracking("menu_handler") as tracker:
    assert_type(tracker, ActionTracker)
    tracker.size(3)
    tracker.to_fail("reason")

assert_type(current_action(), ActionTracker)


@action_tracking_decorator("menu_handler")
def plain(number: int, *, key: str = "") -> list[str]:
    return [key] * number


@action_tracking_decorator("answer_llm_call")
async def coroutine(number: int) -> str:
    return str(number)


@action_tracking_decorator("stream_llm_call")
def generator() -> Iterator[int]:
    yield 1


@action_tracking_decorator("stream_llm_call")
async def async_generator() -> AsyncIterator[int]:
    yield 1


class Bot:
    @action_tracking_decorator("menu_handler")
    def method(self, number: int) -> str:
        return str(number)

    @classmethod
    @action_tracking_decorator("menu_handler")
    def class_method(cls, number: int) -> str:
        return str(number)

    @staticmethod
    @action_tracking_decorator("menu_handler")
    def static_method(number: int) -> str:
        return str(number)


async def awaiting() -> None:
    assert_type(await coroutine(1), str)
    async for number in async_generator():
        assert_type(number, int)


class CallableObject:
    def __call__(self, number: int) -> str:
        return str(number)


assert_type(plain(1, key="a"), list[str])
assert_type(generator(), Iterator[int])
assert_type(async_generator(), AsyncIterator[int])
assert_type(Bot().method(1), str)
assert_type(Bot.class_method(1), str)
assert_type(Bot.static_method(1), str)
assert_type(action_tracking_decorator("menu_handler")(CallableObject())(1), str)
assert_type(action_tracking_decorator("menu_handler")(partial(plain, 1))(), list[str])
handler: Callable[[int], Awaitable[str]] = coroutine

assert_type(render_metrics(), tuple[bytes, str])
assert_type(start_metrics_server(), MetricsServer)
configure(app="shop_bot", env="prod", backends=["prometheus"], strict=True)

with record_metrics() as recorded:
    assert_type(recorded, RecordedMetrics)
    assert_type(recorded.events, list[ActionEvent])
    recorded.assert_action("menu_handler", status="ok", times=1, size=None)
    recorded.assert_metric("genapp_action_count_total", 1, name="menu_handler", status="ok")
