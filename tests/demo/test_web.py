import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from llm_common.demo import web
from llm_common.demo.bot import SupportBot
from llm_common.demo.chance import seeded
from llm_common.demo.knowledge import ARTICLES, Knowledge
from llm_common.demo.llm_client import LlmClient, LlmError, Reply
from llm_common.demo.load import web_client
from llm_common.demo.orders import FIRST_ORDER, STATES, OrderBook
from llm_common.demo.web import web_app
from llm_common.demo.web_server import WebServer
from llm_common.testing import RecordedMetrics

TEXT = "We deliver within three working days."


class Model(LlmClient):
    """Answers with one text, or as it is told: by an error, or never."""

    def __init__(self, trouble: LlmError | None = None, *, silent: bool = False) -> None:
        super().__init__("127.0.0.1", 0)
        self.trouble = trouble
        self.silent = silent
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def complete(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Reply:
        self.asked.set()
        if self.silent:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.trouble:
            raise self.trouble
        return Reply({"role": "assistant", "content": TEXT}, 6)


@asynccontextmanager
async def shop(model: LlmClient | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the shop, which runs."""
    knowledge, orders = Knowledge(), OrderBook(seeded(1, "orders"))
    knowledge.reindex()
    app = web_app(knowledge, orders, SupportBot(knowledge, orders, model or Model()))
    async with asyncio.timeout(60), WebServer(app) as server, web_client(server.url) as client:
        yield client


def get(path: str, model: LlmClient | None = None) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with shop(model) as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_the_articles_are_listed_by_number_and_title(recorded_metrics: RecordedMetrics) -> None:
    listed = get("/articles").json()
    assert [one["number"] for one in listed] == list(range(1, ARTICLES + 1))
    assert "Delivery" in [one["title"] for one in listed]
    assert set(listed[0]) == {"number", "title"}
    recorded_metrics.assert_http(resource="articles", method="GET", status="200", app_type="app_api", times=1)


def test_an_article_has_its_text(recorded_metrics: RecordedMetrics) -> None:
    article = get("/articles/1").json()
    assert (article["number"], bool(article["title"]), len(article["text"]) > 100) == (1, True, True)
    recorded_metrics.assert_http(resource="articles/{number}", status="200", times=1)


def test_an_order_says_where_it_is(recorded_metrics: RecordedMetrics) -> None:
    order = get(f"/orders/{FIRST_ORDER}").json()
    assert order["number"] == FIRST_ORDER
    assert order["state"] in STATES
    recorded_metrics.assert_http(resource="orders/{number}", status="200", times=1)


@pytest.mark.parametrize(
    ("path", "resource", "detail"),
    [
        ("/orders/5", "orders/{number}", "there is no order 5"),
        ("/articles/99", "articles/{number}", "there is no article 99"),
        ("/offers/1", "{unknown}", "Not Found"),
    ],
)
def test_what_does_not_exist_is_not_found(
    path: str, resource: str, detail: str, recorded_metrics: RecordedMetrics
) -> None:
    answer = get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": detail})
    recorded_metrics.assert_http(resource=resource, status="404", times=1)


def test_a_question_is_answered_by_the_agent(recorded_metrics: RecordedMetrics) -> None:
    async def ask() -> None:
        async with shop() as client:
            answer = await client.post("/questions", json={"question": "How long does delivery take?"})
            assert (answer.status_code, answer.json()) == (200, {"text": TEXT, "sources": []})

    asyncio.run(ask())
    recorded_metrics.assert_http(resource="questions", method="POST", status="200", times=1)
    recorded_metrics.assert_action("support_agent", status="ok")


def test_a_question_that_is_none_is_refused(recorded_metrics: RecordedMetrics) -> None:
    async def ask() -> None:
        async with shop() as client:
            assert (await client.post("/questions", json={"question": 5})).status_code == 422

    asyncio.run(ask())
    recorded_metrics.assert_http(resource="questions", status="422", times=1)


def test_an_answer_is_streamed_word_by_word_and_its_question_is_no_label(recorded_metrics: RecordedMetrics) -> None:
    async def ask() -> str:
        async with shop() as client, client.stream("GET", "/answers/stream?question=delivery") as answer:
            return "".join([part async for part in answer.aiter_text()])

    assert asyncio.run(ask()).split() == TEXT.split()
    recorded_metrics.assert_http(resource="answers/stream", status="200", times=1)
    recorded_metrics.assert_action("answer_stream", status="ok", size=len(TEXT.split()))


def test_a_broken_model_is_a_503(recorded_metrics: RecordedMetrics) -> None:
    answer = get("/answers/stream?question=delivery", Model(LlmError("status 500")))
    assert (answer.status_code, answer.json()) == (503, {"detail": "status 500"})
    recorded_metrics.assert_http(resource="answers/stream", status="503", times=1)


def test_a_customer_who_closes_the_page_takes_the_question_back(recorded_metrics: RecordedMetrics) -> None:
    async def ask() -> None:
        model = Model(silent=True)
        async with shop(model) as client:
            asking = asyncio.create_task(client.post("/questions", json={"question": "How long?"}))
            await model.asked.wait()
            asking.cancel()
            await model.cancelled.wait()
            await asyncio.wait([asking])

    asyncio.run(ask())
    recorded_metrics.assert_http(resource="questions", method="POST", status="499", times=1)
    recorded_metrics.assert_action("support_agent", status="cancelled")
    assert recorded_metrics.exchanges[0].response_bytes == 0


def test_a_customer_who_stops_reading_is_gone(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "WORD_EVERY", 600)

    async def ask() -> None:
        async with shop() as client, client.stream("GET", "/answers/stream?question=delivery") as answer:
            assert await anext(answer.aiter_text()) == "We "

    asyncio.run(ask())
    recorded_metrics.assert_http(resource="answers/stream", status="499", times=1)


def test_the_server_leaves_nothing_behind_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())

    async def visit() -> None:
        async with shop() as client:
            await client.get("/articles")
            port = client.base_url.port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"nonsense\r\n\r\n")
            assert b"400" in await reader.read()
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(visit())
    assert capfd.readouterr() == ("", "")
    assert set(threading.enumerate()) == before


def test_the_server_does_not_wait_for_a_client_that_never_ends(capfd: pytest.CaptureFixture[str]) -> None:
    async def visit() -> None:
        async with shop() as client:
            _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(b"POST /questions HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n{")
            await client.get("/articles")
        writer.close()

    asyncio.run(visit())
    assert capfd.readouterr() == ("", "")
