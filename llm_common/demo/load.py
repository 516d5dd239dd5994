"""The customers: simulated users who keep the bot busy, and the clock that calls its scheduled task."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

from llm_common.demo.bot import SupportBot
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
"""How long, in seconds, most customers wait for an answer before they close the chat."""
RUSH = 12.0
"""How many seconds lie between two rush hours."""


async def customer(bot: SupportBot, chance: Random) -> None:
    """Be one customer after another, until cancelled."""
    while True:
        tide = 1 + 0.6 * math.sin(asyncio.get_running_loop().time() * 2 * math.pi / RUSH)
        await asyncio.sleep(chance.expovariate(1 / THINKING) * tide)
        await visit(bot, chance)


async def visit(bot: SupportBot, chance: Random) -> None:
    """Do one of the things that customers do."""
    wish = chance.random()
    if wish < 0.2:
        await bot.menu_handler()
    elif wish < 0.4:
        await press_order_button(bot, chance.randrange(FIRST_ORDER, FIRST_ORDER + ORDERS + 10))  # the last 10: unknown
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


async def every(seconds: float, task: Callable[[], Awaitable[object]]) -> None:
    """Call ``task`` each time that ``seconds`` have passed, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await task()


def day(
    bot: SupportBot, chances: Callable[[str], Random], customers: int, reindex_every: float
) -> list[Coroutine[Any, Any, None]]:
    """Return all that goes on at once: so many customers, and the scheduled task each ``reindex_every`` seconds."""
    crowd = [customer(bot, chances(f"customer {number}")) for number in range(customers)]
    return [opening(bot), *crowd, every(reindex_every, bot.reindex_task)]
