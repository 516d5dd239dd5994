"""The shop on the web: a FastAPI application, whose requests one line counts.

What is asked here goes to the same agent as what is asked in a chat. A customer who closes the page takes the question
back, with every call that was made for it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from llm_common.demo.bot import Answer, SupportBot
from llm_common.demo.knowledge import Knowledge, UnknownArticleError
from llm_common.demo.llm_client import LlmError
from llm_common.demo.orders import OrderBook, UnknownOrderError
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.prometheus import action_tracking_decorator, current_action

WORD_EVERY = 0.005
"""How many seconds lie between two words of an answer that is streamed."""
CLIENT_GONE = 499
"""nginx's status for a request whose client has gone. Nobody receives it."""

T = TypeVar("T")


class ClientGoneError(Exception):
    """Whoever asked isn't there any more."""


@dataclass(frozen=True, slots=True)
class Article:
    """An article as the shop shows it; in a list without its text."""

    number: int
    title: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order, and where it is."""

    number: int
    state: str


def web_app(knowledge: Knowledge, orders: OrderBook, bot: SupportBot) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="The shop of the llm_common demo")
    app.add_middleware(MetricsMiddleware)

    @app.exception_handler(UnknownArticleError)
    @app.exception_handler(UnknownOrderError)
    async def not_found(request: Request, problem: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, HTTPStatus.NOT_FOUND)

    @app.exception_handler(LlmError)
    async def unavailable(request: Request, problem: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, HTTPStatus.SERVICE_UNAVAILABLE)

    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, problem: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.get("/articles", response_model_exclude_none=True)
    async def articles() -> list[Article]:
        return [Article(number, title) for number, title in enumerate(knowledge.titles, 1)]

    @app.get("/articles/{number}")
    async def article(number: int) -> Article:
        return Article(number, *knowledge.article(number))

    @app.get("/orders/{number}")
    async def order(number: int) -> Order:
        return Order(number, orders.state(number))

    @app.post("/questions")
    async def ask(request: Request, question: Annotated[str, Body(embed=True)]) -> Answer:
        return await while_connected(request, bot.support_agent(question))

    @app.get("/answers/stream")
    async def stream(request: Request, question: str) -> StreamingResponse:
        answer = await while_connected(request, bot.support_agent(question))
        return StreamingResponse(spoken(answer.text), media_type="text/plain")

    return app


@action_tracking_decorator("answer_stream")
async def spoken(text: str) -> AsyncIterator[str]:
    """Yield ``text`` word by word, as models speak. The size of the action is the number of words."""
    for word in text.split():
        current_action().size(1)
        yield f"{word} "
        await asyncio.sleep(WORD_EVERY)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns. Where the client goes away meanwhile, ``work`` is cancelled.

    Raises whatever ``work`` raises, and :class:`ClientGoneError` where it was cancelled so.
    """
    tasks = working, leaving = asyncio.create_task(work), asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def disconnected(request: Request) -> None:
    """Return when the client has gone. What else it still sends is dropped."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
