"""The support bot. Every handler, task, LLM call and agent in it is tracked, each in the way that suits it best."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_common.demo.knowledge import Knowledge
from llm_common.demo.llm_client import MODEL, LlmClient, LlmError, RateLimitedError, Reply
from llm_common.demo.orders import OrderBook
from llm_common.prometheus import action_tracking, action_tracking_decorator, current_action

INSTRUCTIONS = "You answer the customers of a small shop, briefly, from its support articles alone."
SORRY = "Something went wrong here. Please ask again in a minute."
SEARCH = {
    "type": "function",
    "function": {
        "name": "search_articles",
        "description": "Search the shop's support articles.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
MAX_STEPS = 4
"""How many times the agent turns to the model for one question."""
RETRY_AFTER = 0.05
"""How long, in seconds, the agent waits after the model had too many requests."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent says, and the titles of the articles that it rests on; none where nothing was found."""

    text: str
    sources: tuple[str, ...]


class SupportBot:
    """Answers customers, from its knowledge and with the help of a language model."""

    def __init__(self, knowledge: Knowledge, orders: OrderBook, llm: LlmClient) -> None:
        self._knowledge = knowledge
        self._orders = orders
        self._llm = llm

    @action_tracking_decorator("menu_handler")
    async def menu_handler(self) -> str:
        """Return the menu: one line for each article."""
        return "\n".join(f"{number}. {title}" for number, title in enumerate(self._knowledge.titles, 1))

    @action_tracking_decorator("order_callback_handler")
    async def order_callback_handler(self, number: int) -> str:
        """Return where an order is; its button was pressed.

        Raises :class:`~llm_common.demo.orders.UnknownOrderError`, which makes the action an error.
        """
        return f"Your order {number} {self._orders.state(number)}."

    async def question_handler(self, question: str) -> str:
        """Return the answer to a customer's question. Its size is the number of characters sent.

        A fault of the model is no exception here, since the customer gets an apology; the action is an error all the
        same, and so is one to which the articles had no answer.
        """
        with action_tracking("question_handler") as tracker:
            try:
                answer = await self.support_agent(question)
            except LlmError:
                tracker.to_fail("llm_unavailable")
                return SORRY
            if not answer.sources:
                tracker.to_fail("no_answer")
            tracker.size(len(answer.text))
            return answer.text

    @action_tracking_decorator("support_agent")
    async def support_agent(self, question: str) -> Answer:
        """Let the model search until it can answer ``question``.

        Raises :class:`~llm_common.demo.llm_client.LlmError` where the model fails or comes to no end.
        """
        messages: list[Mapping[str, Any]] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": question},
        ]
        sources: list[str] = []
        for _ in range(MAX_STEPS):
            try:
                reply = await self.answer_llm_call(messages)
            except RateLimitedError:
                await asyncio.sleep(RETRY_AFTER)
                continue
            messages.append(reply.message)
            if not reply.searches:
                return Answer(str(reply.message["content"]), tuple(sources))
            for call, query in reply.searches:
                passages = self._knowledge.search(query)
                sources += (passage.title for passage in passages)
                found = " ".join(passage.text for passage in passages)
                messages.append({"role": "tool", "tool_call_id": call, "content": found})
        raise LlmError(f"no answer after {MAX_STEPS} steps")

    @action_tracking_decorator("answer_llm_call")
    async def answer_llm_call(self, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """Return the model's next message. The size of the action is the number of tokens in it."""
        reply = await self._llm.complete(messages, [SEARCH])
        current_action().size(reply.tokens)
        current_action().tokens(MODEL, input=reply.given, output=reply.tokens)  # if such metrics are switched on
        return reply

    @action_tracking_decorator("reindex_task")
    async def reindex_task(self) -> None:
        """Bring the index up to date, in a thread. The size of the action is the number of bytes indexed."""
        await asyncio.to_thread(self._knowledge.reindex)
