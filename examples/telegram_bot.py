"""A shop's bot made with python-telegram-bot. Every handler and job is an action, every request to Telegram is counted.

Run it with a token of your own, which @BotFather gives you, and look at http://127.0.0.1:9464/metrics meanwhile::

    pip install 'python-telegram-bot[job-queue]'
    BOT_TOKEN=... python examples/telegram_bot.py
"""

import os
import sys
from typing import Any

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import Application, ApplicationBuilder, CallbackQueryHandler, CommandHandler, ContextTypes

from llm_common.integrations.telegram import TrackedRequest, track_handlers
from llm_common.prometheus import configure, start_metrics_server

STOCK = {"coffee": 2, "soup": 0}


class SoldOutError(Exception):
    """There is nothing left of what was ordered."""


async def menu(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    """Show what there is; the action ``menu_handler``."""
    if update.effective_message is not None:
        buttons = [[InlineKeyboardButton(dish, callback_data=f"order:{dish}")] for dish in STOCK]
        await update.effective_message.reply_text("What would you like?", reply_markup=InlineKeyboardMarkup(buttons))


async def order(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    """Take an order, and deliver it later; ``names`` below names the action."""
    query = update.callback_query
    if query is None or context.job_queue is None:
        return
    await query.answer()
    dish = (query.data or "").removeprefix("order:")
    if not STOCK[dish]:
        raise SoldOutError(dish)
    STOCK[dish] -= 1
    context.job_queue.run_once(deliver, float(os.environ.get("DELIVERY", "60")), data=dish, chat_id=query.from_user.id)


async def deliver(context: ContextTypes.DEFAULT_TYPE) -> None:
    """Bring what was ordered; the action ``deliver_task``."""
    if context.job is not None and context.job.chat_id is not None:
        await context.bot.send_message(context.job.chat_id, f"Here is your {context.job.data}.")


async def sold_out(update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
    """Apologise. The action that failed counts as an error all the same."""
    if isinstance(update, Update) and update.effective_user is not None:
        await context.bot.send_message(update.effective_user.id, f"Sorry, no {context.error} today.")


def build() -> "Application[Any, Any, Any, Any, Any, Any]":
    """Return the application, tracked."""
    api = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
    builder = ApplicationBuilder().token(os.environ["BOT_TOKEN"]).base_url(f"{api}/bot")
    builder.request(TrackedRequest()).get_updates_request(TrackedRequest(connection_pool_size=1))
    application = builder.build()
    track_handlers(application, names={order: "serve_order_handler"})
    application.add_handler(CommandHandler(["start", "menu"], menu))
    application.add_handler(CallbackQueryHandler(order, pattern="^order:"))
    application.add_error_handler(sold_out)
    return application


if __name__ == "__main__":
    if not os.environ.get("BOT_TOKEN"):
        sys.exit("No token: run it as BOT_TOKEN=... python examples/telegram_bot.py")
    configure(app="shop_bot")
    with start_metrics_server(int(os.environ.get("METRICS_PORT", "9464"))) as metrics:
        print(f"metrics: {metrics.url}", flush=True)
        build().run_polling()
