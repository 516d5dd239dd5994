"""The example bots, each a process of its own that talks to a Bot API on loopback."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from scraping import Series, parsed, series
from telegram_api import PATIENCE, SECRET, TOKEN, TelegramApi, message, pressed, telegram_api

EXAMPLES = Path(__file__).parents[2] / "examples"

NO_LOOP = "ignore:There is no current event loop:DeprecationWarning"
"""What run_polling() of python-telegram-bot is told, from CPython 3.12 on."""

pytestmark = pytest.mark.e2e


@asynccontextmanager
async def bot(example: str, api: TelegramApi) -> AsyncIterator[str]:
    """Run an example until the block ends, and have it stop as a service is stopped; yield the metrics' address."""
    settings = {"TELEGRAM_API": api.url, "BOT_TOKEN": TOKEN, "METRICS_PORT": "0", "DELIVERY": "0", "no_proxy": "*"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-W", NO_LOOP, str(EXAMPLES / example)),
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            first = (await process.stdout.readline()).decode()
            assert first.startswith("metrics: "), (await process.communicate())[1].decode()
            yield first.split()[1]
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            print((await process.communicate())[1].decode())


async def visit(example: str) -> tuple[list[str], str]:
    """Visit a shop; return what its bot said, and its metrics."""
    async with telegram_api() as api, bot(example, api) as url:
        await api.push(message("/start"), message("what?"))
        await api.called("sendMessage", 1)
        await api.push(pressed("order:coffee"))
        await api.called("sendMessage", 2)
        await api.push(pressed("order:soup"))
        await api.called("sendMessage", 3)
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            while True:  # until the bot, too, knows that it sent the last message
                async with session.get(url) as response:
                    text = await response.text()
                if requests(parsed(text), "sendMessage") == 3:
                    return api.texts, text


def actions(scrape: dict[Series, float]) -> dict[tuple[str, str], float]:
    found = {}
    for (name, labels), value in scrape.items():
        if name == "genapp_action_count_total":
            given = dict(labels)
            assert (given["app"], given["env"]) == ("shop_bot", "dev")
            found[given["name"], given["status"]] = value
    return found


def requests(scrape: dict[Series, float], resource: str) -> float:
    labels = {"method": "POST", "status": "200", "resource": resource, "app_type": "telegram_api"}
    return scrape.get(series("genapp_http_requests_total", env="dev", app="shop_bot", **labels), 0)


@pytest.mark.parametrize("example", ["aiogram_bot.py", "telegram_bot.py"])
def test_without_a_token_a_bot_says_how_to_give_it_one(example: str) -> None:
    started = subprocess.run(
        [sys.executable, str(EXAMPLES / example)],
        env={**os.environ, "BOT_TOKEN": "", "METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,  # the framework may have to be compiled first
    )
    assert started.returncode == 1
    assert started.stdout == ""
    assert started.stderr == f"No token: run it as BOT_TOKEN=... python examples/{example}\n"


def test_the_aiogram_bot() -> None:
    said, text = asyncio.run(visit("aiogram_bot.py"))
    assert said == ["What would you like?", "Your coffee is on its way.", "Sorry, no soup today."]
    scrape = parsed(text)
    assert actions(scrape) == {
        ("menu_handler", "ok"): 1,
        ("unhandled_update_handler", "ok"): 1,
        ("place_order_handler", "ok"): 1,
        ("place_order_handler", "error"): 1,
    }
    assert requests(scrape, "getMe") == 1
    assert SECRET not in text


def test_the_python_telegram_bot() -> None:
    said, text = asyncio.run(visit("telegram_bot.py"))
    assert said == ["What would you like?", "Here is your coffee.", "Sorry, no soup today."]
    scrape = parsed(text)
    assert actions(scrape) == {
        ("menu_handler", "ok"): 1,
        ("serve_order_handler", "ok"): 1,
        ("serve_order_handler", "error"): 1,
        ("deliver_task", "ok"): 1,
    }
    assert requests(scrape, "answerCallbackQuery") == 2
    assert SECRET not in text
