"""Telegram's side of an alert: a Bot API on loopback that refuses what the real one refuses, and a little more."""

import html
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from telegram_api import TOKEN

LIMIT = 4096
"""How many characters a message has at most; for Telegram once it is parsed, for Alertmanager before that."""
TAGS = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "tg-spoiler", "blockquote", "a"}
ENTITY = r"&(?:lt|gt|amp|quot|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});"
PIECE = re.compile(rf'<(?P<end>/?)(?P<tag>[a-z-]+)(?: href="(?P<href>(?:[^"<>&]|{ENTITY})*)")?>|{ENTITY}|[^<>&]+')
"""Entities by name that Telegram doesn't know it would show as they are written; here they are refused."""


class Refused(Exception):
    """Telegram doesn't take a message, and says why."""


@dataclass(frozen=True)
class Message:
    """A message that was taken."""

    chat: int
    html: str
    """As it was sent."""
    text: str
    """As it is read in the chat."""
    links: tuple[str, ...]


def read(chat: int, text: str) -> Message:
    """Parse a message in HTML; raise :class:`Refused` where Telegram would refuse it, or cut it before."""
    shown, links, opened = [], [], list[str]()
    at = 0
    while at < len(text):
        piece = PIECE.match(text, at)
        if piece is None:
            raise Refused(f"can't parse entities: neither tag, entity nor text: {text[at : at + 20]!r}")
        at = piece.end()
        tag = piece["tag"]
        if tag is None:
            shown.append(html.unescape(piece[0]))
        elif tag not in TAGS or (tag == "a" and not piece["end"]) != (piece["href"] is not None):
            raise Refused(f"can't parse entities: unsupported tag {piece[0]!r}")
        elif piece["end"]:
            if not opened or opened.pop() != tag:
                raise Refused(f"can't parse entities: unexpected end tag {piece[0]!r}")
        elif {"code", "pre"} & set(opened):
            raise Refused(f"can't parse entities: {piece[0]!r} within code")
        else:
            opened.append(tag)
            links += [html.unescape(piece["href"])] if tag == "a" else []
    if opened:
        raise Refused(f"can't parse entities: can't find end tag corresponding to start tag {opened[-1]}")
    whole = "".join(shown)
    if not whole.strip():
        raise Refused("message text is empty")
    if max(len(text), len(whole.encode("utf-16-le")) // 2) > LIMIT:
        raise Refused("message is too long")
    return Message(chat, text, whole, tuple(links))


class Chats:
    """What a bot said in all its chats, and what it couldn't say."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.messages: list[Message] = []
        self.refused: list[str] = []
        """Why messages were refused, and their texts."""
        self._changed = threading.Condition()

    def said(self, *words: str) -> list[Message]:
        """Return the messages that have all these words in them, in the order of their arrival."""
        return [one for one in list(self.messages) if all(word in one.text for word in words)]

    def heard(self, *words: str, times: int = 1, seconds: float = 30) -> list[Message]:
        """Wait until so many messages with these words are there."""
        self.until(lambda: len(self.said(*words)) >= times, seconds)
        return self.said(*words)

    def until(self, happened: Callable[[], object], seconds: float = 30) -> None:
        """Wait for what must happen; fail at once where a message is refused."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.refused or happened(), seconds)
        assert not self.refused, self.refused
        assert done, f"that didn't happen; there are: {[one.text for one in self.messages]}"

    def answer(self, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer as the Bot API does."""
        with self._changed:
            try:
                if path != f"/bot{TOKEN}/sendMessage":
                    raise Refused(f"no such bot or method: {path}")
                if fields.get("parse_mode") != "HTML":
                    raise Refused("this bot speaks HTML")
                self.messages.append(message := read(int(fields["chat_id"]), fields["text"]))
            except Refused as problem:
                self.refused.append(f"{problem}: {fields}")
                return 400, {"ok": False, "error_code": 400, "description": f"Bad Request: {problem}"}
            finally:
                self._changed.notify_all()
        chat = {"id": message.chat, "type": "private", "first_name": "Ann"}
        return 200, {"ok": True, "result": {"message_id": len(self.messages), "date": 1, "chat": chat}}


@contextmanager
def telegram_chats() -> Iterator[Chats]:
    """Serve the Bot API."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = chats.answer(self.path, fields)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        chats = Chats(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield chats
        finally:
            server.shutdown()
            serving.join()
