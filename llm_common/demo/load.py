"""The customers: simulated users who keep the bot and the shop busy, and the clock that calls the scheduled task.

Those of the bot call its handlers, as a bot framework would. Those of the shop send real HTTP requests, through a
client that isn't tracked, since they are no part of the application.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import httpx

from llm_common.demo.bot import SupportBot
from llm_common.demo.knowledge import ARTICLES
from llm_common.demo.llm_client import UNLIMITED
from llm_common.demo.orders import FIRST_ORDER, ORDERS, UnknownOrderError

QUESTIONS = (
    "How long does standard delivery take?",
    "Is express delivery possible for furniture?",
    "My parcel shows no new tracking, what now?",
    "How many days do I have to return unused goods?",
    "When do I get my refund?",
    "Why was my card declined?",
    "Can I pay by bank transfer?",
    "How long is the warranty on a kettle?",
    "How long are gift cards valid?",
    "I have forgotten my password.",
    "How do I cancel an order?",
    "Which bulbs fit your lamps?",
    "My lamp flickers, is it broken?",
    "Do you keep penguins?",  # nothing is known of them
)
THINKING = 0.3
"""How long, in seconds, a customer waits on average before the next message."""
PATIENCE = 2.0
"""How long, in seconds, most customers wait for an answer before they close the chat or the page."""
RUSH = 12.0
"""How many seconds lie between two rush hours."""


async def customer(bot: SupportBot, chance: Random) -> None:
    """Be one customer after another, until cancelled."""
    while True:
        await think(chance)
        await visit(bot, chance)


async def think(chance: Random) -> None:
    """Wait as long as a customer thinks, who is quicker in the rush hour."""
    tide = 1 + 0.6 * math.sin(asyncio.get_running_loop().time() * 2 * math.pi / RUSH)
    await asyncio.sleep(chance.expovariate(1 / THINKING) * tide)


async def visit(bot: SupportBot, chance: Random) -> None:
    """Do one of the things that customers do."""
    wish = chance.random()
    if wish < 0.2:
        await bot.menu_handler()
    elif wish < 0.4:
        await press_order_button(bot, some_order(chance))
    elif wish < 0.95:
        await ask(bot, chance.choice(QUESTIONS))
    else:
        await leave_soon(bot, chance.choice(QUESTIONS), chance.uniform(0, 0.05))


async def opening(bot: SupportBot) -> None:
    """Be the first customer of the day, who meets every kind of end at once, so that each can be seen."""
    await bot.menu_handler()
    await press_order_button(bot, FIRST_ORDER)
    await press_order_button(bot, FIRST_ORDER + ORDERS)
    await leave_soon(bot, QUESTIONS[0], 0)
    await ask(bot, QUESTIONS[0])


async def ask(bot: SupportBot, question: str, patience: float = PATIENCE) -> str | None:
    """Return the bot's answer, or ``None`` where it didn't come within ``patience`` seconds."""
    with suppress(TimeoutError):
        # Not asyncio.wait_for(), which in Python 3.11 loses a cancellation that comes together with the answer.
        async with asyncio.timeout(patience):
            return await bot.question_handler(question)
    return None


async def press_order_button(bot: SupportBot, number: int) -> str | None:
    """Return what the bot says about the order, or ``None`` where the handler failed, as a bot framework would."""
    with suppress(UnknownOrderError):
        return await bot.order_callback_handler(number)
    return None


async def leave_soon(bot: SupportBot, question: str, seconds: float) -> None:
    """Ask, and close the chat ``seconds`` later, whether or not the answer came."""
    async with asyncio.TaskGroup() as chat:
        answer = chat.create_task(bot.question_handler(question))
        await asyncio.sleep(seconds)
        answer.cancel()


def some_order(chance: Random) -> int:
    """Return the number of an order, of which one in ten is unknown."""
    return chance.randrange(FIRST_ORDER, FIRST_ORDER + ORDERS + ORDERS // 9)


def web_client(url: str) -> httpx.AsyncClient:
    """Return what customers use to visit the shop at ``url``: no browser goes through the proxy of a server."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=UNLIMITED, trust_env=False)


async def web_customer(shop: httpx.AsyncClient, chance: Random) -> None:
    """Be one customer of the shop after another, until cancelled."""
    while True:
        await think(chance)
        await patiently(browse(shop, chance))


async def patiently(visit: Awaitable[object]) -> None:
    """Wait for the end of a visit, or close the page where there is no answer within :data:`PATIENCE` seconds."""
    with suppress(httpx.TransportError):
        await visit


async def browse(shop: httpx.AsyncClient, chance: Random) -> None:
    """Do one of the things that customers of the shop do."""
    wish, question = chance.random(), chance.choice(QUESTIONS)
    if wish < 0.25:
        await shop.get("/articles")
    elif wish < 0.45:
        await shop.get(f"/articles/{chance.randint(1, ARTICLES + 1)}")  # the last: unknown
    elif wish < 0.65:
        await shop.get(f"/orders/{some_order(chance)}")
    elif wish < 0.7:
        await shop.get(f"/offers/{chance.randrange(1_000)}")  # an old link, which leads nowhere
    elif wish < 0.85:
        await shop.post("/questions", json={"question": question})
    elif wish < 0.93:
        await shop.get("/answers/stream", params={"question": question})
    elif wish < 0.97:
        await close_page(shop, question, chance.uniform(0, 0.05))
    else:
        await stop_reading(shop, question)


async def web_opening(shop: httpx.AsyncClient) -> None:
    """Be the first customer of the shop, who goes everywhere once, so that all of it can be seen."""
    for page in ("/articles", "/articles/1", f"/orders/{FIRST_ORDER}", f"/orders/{FIRST_ORDER + ORDERS}", "/offers/1"):
        await patiently(shop.get(page))
    await patiently(stop_reading(shop, QUESTIONS[0]))
    await patiently(shop.get("/answers/stream", params={"question": QUESTIONS[0]}))
    await patiently(shop.post("/questions", json={"question": QUESTIONS[0]}))


async def close_page(shop: httpx.AsyncClient, question: str, seconds: float) -> None:
    """Ask, and close the page ``seconds`` later, whether or not the answer came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await shop.post("/questions", json={"question": question})


async def stop_reading(shop: httpx.AsyncClient, question: str) -> None:
    """Ask, and close the page when the first words of the answer are there."""
    async with shop.stream("GET", "/answers/stream", params={"question": question}) as answer:
        await anext(answer.aiter_raw(), None)


async def every(seconds: float, task: Callable[[], Awaitable[object]]) -> None:
    """Call ``task`` each time that ``seconds`` have passed, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await task()


def day(
    bot: SupportBot, shop: httpx.AsyncClient, chances: Callable[[str], Random], customers: int, reindex_every: float
) -> list[Coroutine[Any, Any, None]]:
    """Return all that goes on at once.

    There are so many ``customers`` of the bot and again of the shop, and the scheduled task each ``reindex_every``
    seconds.
    """
    chats = [customer(bot, chances(f"customer {number}")) for number in range(customers)]
    visits = [web_customer(shop, chances(f"web customer {number}")) for number in range(customers)]
    return [opening(bot), web_opening(shop), *chats, *visits, every(reindex_every, bot.reindex_task)]
