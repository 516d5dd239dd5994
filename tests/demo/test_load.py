import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from llm_common.demo import load
from llm_common.demo.bot import SupportBot
from llm_common.demo.chance import seeded
from llm_common.demo.knowledge import Knowledge
from llm_common.demo.llm_client import LlmClient, Reply
from llm_common.demo.orders import FIRST_ORDER, OrderBook
from llm_common.testing import RecordedMetrics


class Model(LlmClient):
    """Replies at once, or never."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__("127.0.0.1", 0)
        self.silent = silent

    async def complete(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Reply:
        await (asyncio.Event().wait() if self.silent else asyncio.sleep(0))
        return Reply({"role": "assistant", "content": "Yes."}, 1)


def bot(*, silent: bool = False) -> SupportBot:
    knowledge = Knowledge()
    knowledge.reindex()
    return SupportBot(knowledge, OrderBook(seeded(1, "orders")), Model(silent=silent))


def test_the_first_customer_meets_every_kind_of_end(recorded_metrics: RecordedMetrics) -> None:
    asyncio.run(load.opening(bot()))
    assert {str(event.status) for event in recorded_metrics.events} == {"ok", "error", "cancelled"}
    recorded_metrics.assert_action("order_callback_handler", status="error")
    recorded_metrics.assert_action("question_handler", status="cancelled")


def test_customers_do_everything_that_there_is_to_do(recorded_metrics: RecordedMetrics) -> None:
    async def visits() -> None:
        chance = seeded(1, "customer")
        for _ in range(60):
            await load.visit(bot(), chance)

    asyncio.run(visits())
    assert {event.name for event in recorded_metrics.events} == {
        "answer_llm_call",
        "menu_handler",
        "order_callback_handler",
        "question_handler",
        "support_agent",
    }


def test_a_customer_comes_again_and_again(recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "THINKING", 0.001)

    class Eager(SupportBot):
        visits = 0

        async def menu_handler(self) -> str:
            self.visits += 1
            if self.visits == 3:
                enough.set()
            return await super().menu_handler()

    async def stay() -> None:
        visitor = asyncio.create_task(
            load.customer(Eager(Knowledge(), OrderBook(seeded(1, "orders")), Model()), seeded(1, "customer"))
        )
        await enough.wait()
        visitor.cancel()
        await asyncio.wait([visitor])

    enough = asyncio.Event()
    asyncio.run(stay())
    recorded_metrics.assert_action("menu_handler", times=3)


def test_an_answer_in_time_is_returned() -> None:
    assert asyncio.run(load.ask(bot(), "Is it open?")) == "Yes."


def test_a_customer_whose_patience_ends_closes_the_chat(recorded_metrics: RecordedMetrics) -> None:
    assert asyncio.run(load.ask(bot(silent=True), "Is it open?", patience=0.01)) is None
    recorded_metrics.assert_action("question_handler", status="cancelled")


def test_the_state_of_an_order_is_returned() -> None:
    assert str(FIRST_ORDER) in (asyncio.run(load.press_order_button(bot(), FIRST_ORDER)) or "")


def test_a_scheduled_task_is_called_again_and_again() -> None:
    async def run() -> int:
        calls = 0
        twice = asyncio.Event()

        async def task() -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                twice.set()

        clock = asyncio.create_task(load.every(0.001, task))
        await twice.wait()
        clock.cancel()
        await asyncio.wait([clock])
        return calls

    assert asyncio.run(run()) >= 2


def test_a_day_is_the_customers_and_the_clock() -> None:
    day = load.day(bot(), partial(seeded, 1), customers=3, reindex_every=1)
    assert len(day) == 5
    for one in day:
        one.close()
