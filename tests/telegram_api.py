"""A server on loopback that answers as Telegram's Bot API does, and the updates that it sends to bots."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import aiohttp
from aiohttp import web

TOKEN = "123456789:AAF4ke-Token_of_a_bot_that_is_none_x"
SECRET = TOKEN.split(":")[1]
PATIENCE = 20
"""How many seconds a test waits at most for what must happen."""

BOT = {"id": 123456789, "is_bot": True, "first_name": "Shop", "username": "shop_bot"}
USER = {"id": 42, "is_bot": False, "first_name": "Ann"}
CHAT = {"id": 42, "type": "private", "first_name": "Ann"}
DOCUMENT = {"file_id": "f1", "file_unique_id": "u1", "file_size": 11, "file_name": "bill.txt"}
CONTENT = b"3 coffees\r\n"
_ids = count(1)


def update(kind: str, **content: Any) -> dict[str, Any]:
    return {"update_id": next(_ids), kind: content}


def message(text: str, kind: str = "message", user: int = 42) -> dict[str, Any]:
    who = {"id": user}
    entities = (
        [{"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}] if text.startswith("/") else []
    )
    return update(
        kind, message_id=next(_ids), date=1, chat=CHAT | who, text=text, entities=entities, **{"from": USER | who}
    )


def pressed(data: str) -> dict[str, Any]:
    shown = {"message_id": 1, "date": 1, "chat": CHAT, "from": BOT, "text": "Menu"}
    return update("callback_query", id="7", chat_instance="1", data=data, message=shown, **{"from": USER})


def inline(query: str) -> dict[str, Any]:
    return update("inline_query", id="8", query=query, offset="", **{"from": USER})


def poll() -> dict[str, Any]:
    asked: dict[str, Any] = {"id": "9", "question": "Coffee?", "options": [], "total_voter_count": 0}
    flags = dict.fromkeys(("is_closed", "is_anonymous", "allows_multiple_answers", "allows_revoting"), False)
    return update("poll", type="regular", members_only=False, **asked, **flags)


class TelegramApi:
    """What the server was asked, and what it is to answer."""

    def __init__(self) -> None:
        self.url = ""
        """To be followed by ``/bot<token>/<method>``."""
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.faults: dict[str, tuple[int, str]] = {}
        """Methods that are refused: with which status, and what description."""
        self.silent: set[str] = set()
        """Methods that aren't answered at all."""
        self.webhook = ""
        self.hurried = False
        """Whether who asks for updates from now on is answered at once."""
        self.polls = 0
        """How many wait for updates now."""
        self.arrived = asyncio.Condition()
        self._updates: list[dict[str, Any]] = []
        self._closing = asyncio.Event()
        self.files: dict[str, int] = {}
        """Files that were uploaded, by their names, with their sizes."""

    async def push(self, *updates: dict[str, Any]) -> list[int]:
        """Send updates: to the webhook, if there is one, whose statuses are returned; else to who asks next."""
        if self.webhook:
            async with aiohttp.ClientSession() as session:
                return [(await session.post(self.webhook, json=one)).status for one in updates]
        async with self.arrived:
            self._updates += updates
            self.arrived.notify_all()
        return []

    async def called(self, method: str, times: int = 1) -> list[dict[str, str]]:
        """Wait until ``method`` was called so many times; return what with."""
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: self.times(method) >= times)
        return [fields for name, fields in self.calls if name == method]

    async def fetched(self) -> None:
        """Wait until every update was fetched, and the bot waits for the next."""
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: self.polls and not self._updates)

    def times(self, method: str) -> int:
        return sum(name == method for name, _ in self.calls)

    @property
    def texts(self) -> list[str]:
        """What the bot said, in that order."""
        return [fields["text"] for method, fields in self.calls if method == "sendMessage"]

    @property
    def methods(self) -> Counter[str]:
        return Counter(method for method, _ in self.calls)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.match_info["token"] == TOKEN
        method = request.match_info["method"]
        fields = {}
        for name, field in (await request.post()).items():
            if isinstance(field, web.FileField):
                self.files[field.filename] = len(field.file.read())
            else:
                fields[name] = str(field)
        async with self.arrived:
            self.calls.append((method, fields))
            self.arrived.notify_all()
        if method in self.silent:
            await self._closing.wait()
        if method in self.faults:
            status, description = self.faults[method]
            refusal = {"ok": False, "error_code": status, "description": description}
            return web.json_response(refusal, status=status)
        results: dict[str, Callable[[], Any]] = {
            "getMe": lambda: BOT,
            "sendMessage": lambda: self.said(text=fields["text"]),
            "sendDocument": lambda: self.said(document=DOCUMENT),
            "getFile": lambda: DOCUMENT | {"file_path": "documents/bill.txt"},
        }
        if method == "getUpdates":
            result: Any = await self.updates(int(fields.get("offset", 0)), float(fields.get("timeout", 0)))
        else:
            if method in ("setWebhook", "deleteWebhook"):
                self.webhook = fields.get("url", "")
            result = results.get(method, lambda: True)()
        return web.json_response({"ok": True, "result": result})

    def said(self, **content: Any) -> dict[str, Any]:
        return {"message_id": next(_ids), "date": 1, "chat": CHAT, "from": BOT, **content}

    async def updates(self, offset: int, seconds: float) -> list[dict[str, Any]]:
        async with self.arrived:
            self._updates = [one for one in self._updates if one["update_id"] >= offset]
            self.polls += 1
            self.arrived.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if self.hurried else seconds):
                    await self.arrived.wait_for(lambda: self._updates or self._closing.is_set())
            self.polls -= 1
            return list(self._updates)

    async def download(self, request: web.Request) -> web.Response:
        assert request.match_info["token"] == TOKEN
        return web.Response(body=CONTENT)

    async def close(self) -> None:
        self._closing.set()
        async with self.arrived:
            self.arrived.notify_all()


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an application of aiohttp on loopback; yield its address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def telegram_api() -> AsyncIterator[TelegramApi]:
    """Serve the API."""
    api = TelegramApi()
    app = web.Application()
    app.router.add_post("/bot{token}/{method}", api.answer)
    app.router.add_get("/file/bot{token}/{path:.*}", api.download)
    async with serving(app) as api.url:
        try:
            yield api
        finally:
            await api.close()
