import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from llm_common.demo import load, web
from llm_common.demo.bot import SupportBot
from llm_common.demo.chance import seeded
from llm_common.demo.knowledge import Knowledge
from llm_common.demo.llm_client import LlmClient, Reply
from llm_common.demo.orders import FIRST_ORDER, OrderBook
from llm_common.demo.web import web_app
from llm_common.demo.web_server import WebServer
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
        chance, one = seeded(1, "customer"), bot()
        for _ in range(60):
            await load.visit(one, chance)

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


@asynccontextmanager
async def shop(*, silent: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the shop, which runs."""
    knowledge, orders = Knowledge(), OrderBook(seeded(1, "orders"))
    knowledge.reindex()
    app = web_app(knowledge, orders, SupportBot(knowledge, orders, Model(silent=silent)))
    async with asyncio.timeout(60), WebServer(app) as server, load.web_client(server.url) as client:
        yield client


def served(metrics: RecordedMetrics) -> set[tuple[str, str]]:
    return {(exchange.resource, exchange.status) for exchange in metrics.exchanges if exchange.app_type == "app_api"}


PAGES = {
    ("articles", "200"),
    ("articles/{number}", "200"),
    ("orders/{number}", "200"),
    ("orders/{number}", "404"),
    ("{unknown}", "404"),
    ("answers/stream", "200"),
    ("answers/stream", "499"),
    ("questions", "200"),
}


def test_the_first_customer_of_the_shop_goes_everywhere(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def words(text: str) -> AsyncIterator[str]:
        yield text
        if ("answers/stream", "499") not in served(recorded_metrics):  # the first stream, which nobody reads to its end
            await asyncio.Event().wait()

    async def visit() -> None:
        async with shop() as client:
            await load.web_opening(client)

    monkeypatch.setattr(web, "spoken", words)
    asyncio.run(visit())
    assert served(recorded_metrics) == PAGES


def test_customers_of_the_shop_do_everything_that_there_is_to_do(recorded_metrics: RecordedMetrics) -> None:
    async def visits() -> None:
        chance = seeded(1, "web customer")
        async with shop() as client:
            for _ in range(60):
                await load.browse(client, chance)

    asyncio.run(visits())
    assert served(recorded_metrics) >= PAGES - {("answers/stream", "499")} | {("articles/{number}", "404")}


def test_a_customer_of_the_shop_comes_again_and_again(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "THINKING", 0.001)

    async def stay() -> None:
        thrice = asyncio.Event()
        visits = 0

        async def seen(request: httpx.Request) -> None:
            nonlocal visits
            visits += 1
            if visits == 3:
                thrice.set()

        async with shop() as client:
            client.event_hooks = {"request": [seen]}
            visitor = asyncio.create_task(load.web_customer(client, seeded(1, "web customer")))
            await thrice.wait()
            visitor.cancel()
            await asyncio.wait([visitor])

    asyncio.run(stay())
    assert len(recorded_metrics.exchanges) >= 2


def test_a_customer_of_the_shop_whose_patience_ends_closes_the_page(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PATIENCE", 0.5)

    async def visit() -> None:
        async with shop(silent=True) as client:
            await load.patiently(client.post("/questions", json={"question": "Is it open?"}))

    asyncio.run(visit())
    assert served(recorded_metrics) == {("questions", "499")}


def test_a_customer_may_close_the_page_before_the_answer(recorded_metrics: RecordedMetrics) -> None:
    async def visit() -> None:
        async with shop(silent=True) as client:
            await load.close_page(client, "Is it open?", 0.5)

    asyncio.run(visit())
    assert served(recorded_metrics) == {("questions", "499")}


def test_customers_of_the_shop_are_no_part_of_the_application(recorded_metrics: RecordedMetrics) -> None:
    async def visit() -> None:
        async with shop() as client:
            await client.get("/articles")

    asyncio.run(visit())
    assert [exchange.app_type for exchange in recorded_metrics.exchanges] == ["app_api"]


def test_a_day_is_the_customers_and_the_clock() -> None:
    shop = load.web_client("http://127.0.0.1")
    day = load.day(bot(), shop, partial(seeded, 1), customers=3, reindex_every=1)
    assert len(day) == 9
    for one in day:
        one.close()
