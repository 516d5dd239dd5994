"""A shop's bot made with aiogram. Every handler is an action, and every request to Telegram is counted.

Run it with a token of your own, which @BotFather gives you, and look at http://127.0.0.1:9464/metrics meanwhile::

    pip install aiogram
    BOT_TOKEN=... python examples/aiogram_bot.py
"""

import asyncio
import os
import sys

from aiogram import Bot, Dispatcher, F, Router
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import Command, ExceptionTypeFilter
from aiogram.types import CallbackQuery, ErrorEvent, InlineKeyboardButton, InlineKeyboardMarkup, Message

from llm_common.integrations.aiogram import ActionTrackingMiddleware, TrackedSession
from llm_common.prometheus import configure, start_metrics_server

STOCK = {"coffee": 2, "soup": 0}

router = Router()


class SoldOutError(Exception):
    """There is nothing left of what was ordered."""


@router.message(Command("start", "menu"))
async def menu(message: Message) -> None:
    """Show what there is; the action ``menu_handler``."""
    buttons = [[InlineKeyboardButton(text=dish, callback_data=f"order:{dish}")] for dish in STOCK]
    await message.answer("What would you like?", reply_markup=InlineKeyboardMarkup(inline_keyboard=buttons))


@router.callback_query(F.data.startswith("order:"), flags={"action_tracking": "place_order_handler"})
async def order(query: CallbackQuery, bot: Bot) -> None:
    """Take an order; the flag names the action."""
    dish = (query.data or "").removeprefix("order:")
    if not STOCK[dish]:
        raise SoldOutError(dish)
    STOCK[dish] -= 1
    await query.answer()
    await bot.send_message(query.from_user.id, f"Your {dish} is on its way.")


@router.errors(ExceptionTypeFilter(SoldOutError))
async def sold_out(event: ErrorEvent, bot: Bot) -> None:
    """Apologise. The action that failed counts as an error all the same."""
    if event.update.callback_query is not None:
        await bot.send_message(event.update.callback_query.from_user.id, f"Sorry, no {event.exception} today.")


async def main() -> None:
    """Poll for updates until the process is told to stop."""
    api = TelegramAPIServer.from_base(os.environ.get("TELEGRAM_API", "https://api.telegram.org"))
    bot = Bot(os.environ["BOT_TOKEN"], session=TrackedSession(api=api))
    dispatcher = Dispatcher()
    dispatcher.include_router(router)
    ActionTrackingMiddleware().setup(dispatcher)
    with start_metrics_server(int(os.environ.get("METRICS_PORT", "9464"))) as metrics:
        print(f"metrics: {metrics.url}", flush=True)
        await dispatcher.start_polling(bot)


if __name__ == "__main__":
    if not os.environ.get("BOT_TOKEN"):
        sys.exit("No token: run it as BOT_TOKEN=... python examples/aiogram_bot.py")
    configure(app="shop_bot")
    asyncio.run(main())
