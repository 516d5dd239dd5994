import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from llm_common.demo.bot import MAX_STEPS, SORRY, SupportBot
from llm_common.demo.chance import seeded
from llm_common.demo.knowledge import Knowledge
from llm_common.demo.llm_client import LlmClient, LlmError, RateLimitedError, Reply
from llm_common.demo.orders import FIRST_ORDER, OrderBook, UnknownOrderError
from llm_common.testing import RecordedMetrics


class Script(LlmClient):
    """Replies one after another what it was given, and waits for ever where it is ``None``; exceptions are raised."""

    def __init__(self, replies: Iterable[Reply | LlmError | None]) -> None:
        super().__init__("127.0.0.1", 0)
        self.replies = iter(replies)
        self.asked = asyncio.Event()
        self.heard: Sequence[Mapping[str, Any]] = ()

    async def complete(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Reply:
        self.heard = messages
        self.asked.set()
        reply = next(self.replies)
        if reply is None:
            await asyncio.Event().wait()
        if isinstance(reply, LlmError):
            raise reply
        assert reply is not None
        return reply


def search(query: str) -> Reply:
    function = {"name": "search_articles", "arguments": json.dumps({"query": query})}
    return Reply({"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": function}]}, 1)


def say(text: str) -> Reply:
    return Reply({"role": "assistant", "content": text}, len(text.split()), given=40)


def bot_with(*replies: Reply | LlmError | None) -> tuple[SupportBot, Script]:
    knowledge = Knowledge()
    knowledge.reindex()
    script = Script(replies)
    return SupportBot(knowledge, OrderBook(seeded(1, "orders")), script), script


def test_a_question_is_searched_and_answered(recorded_metrics: RecordedMetrics) -> None:
    bot, script = bot_with(search("delivery"), say("Three days."))
    assert asyncio.run(bot.question_handler("How long?")) == "Three days."
    assert "three working days" in script.heard[3]["content"]
    recorded_metrics.assert_action("question_handler", status="ok", size=11)
    recorded_metrics.assert_action("support_agent", status="ok")
    recorded_metrics.assert_action("answer_llm_call", status="ok", times=2)
    recorded_metrics.assert_metric("genapp_action_size_total", 3, name="answer_llm_call")
    recorded_metrics.assert_metric("genapp_llm_tokens_total", 3, name="answer_llm_call", token_type="output")
    recorded_metrics.assert_metric("genapp_llm_tokens_total", 40, name="answer_llm_call", token_type="input")


def test_an_answer_without_a_source_fails_the_handler_and_not_the_agent(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with(search("penguins"), say("I found nothing."))
    assert asyncio.run(bot.question_handler("Do you keep penguins?")) == "I found nothing."
    recorded_metrics.assert_action("question_handler", status="error")
    recorded_metrics.assert_action("support_agent", status="ok")


def test_a_broken_model_is_an_error_everywhere_and_an_apology_to_the_customer(
    recorded_metrics: RecordedMetrics,
) -> None:
    bot, _ = bot_with(LlmError("status 500"))
    assert asyncio.run(bot.question_handler("How long?")) == SORRY
    assert [(event.name, event.status, event.error_name) for event in recorded_metrics.events] == [
        ("answer_llm_call", "error", "LlmError"),
        ("support_agent", "error", "LlmError"),
        ("question_handler", "error", "llm_unavailable"),
    ]


def test_a_model_with_too_many_requests_is_asked_again(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with(RateLimitedError("later"), search("delivery"), say("Three days."))
    assert asyncio.run(bot.question_handler("How long?")) == "Three days."
    recorded_metrics.assert_action("answer_llm_call", status="error")
    recorded_metrics.assert_action("question_handler", status="ok")


def test_a_model_that_comes_to_no_end_is_given_up() -> None:
    bot, _ = bot_with(*[search("delivery")] * MAX_STEPS)
    with pytest.raises(LlmError, match=f"after {MAX_STEPS} steps"):
        asyncio.run(bot.support_agent("How long?"))


def test_a_closed_chat_cancels_everything_under_way(recorded_metrics: RecordedMetrics) -> None:
    async def chat() -> None:
        bot, script = bot_with(None)
        question = asyncio.create_task(bot.question_handler("How long?"))
        await script.asked.wait()
        question.cancel()
        await asyncio.wait([question])

    asyncio.run(chat())
    for name in ("question_handler", "support_agent", "answer_llm_call"):
        recorded_metrics.assert_action(name, status="cancelled")


def test_the_menu_lists_the_articles(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with()
    assert asyncio.run(bot.menu_handler()).startswith("1. ")
    recorded_metrics.assert_action("menu_handler", status="ok")


def test_an_order_is_looked_up(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with()
    assert str(FIRST_ORDER) in asyncio.run(bot.order_callback_handler(FIRST_ORDER))
    recorded_metrics.assert_action("order_callback_handler", status="ok")


def test_an_unknown_order_passes_through_as_an_error(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with()
    with pytest.raises(UnknownOrderError):
        asyncio.run(bot.order_callback_handler(0))
    recorded_metrics.assert_action("order_callback_handler", status="error")


def test_the_scheduled_task_tells_how_many_bytes_it_indexed(recorded_metrics: RecordedMetrics) -> None:
    bot, _ = bot_with()
    asyncio.run(bot.reindex_task())
    recorded_metrics.assert_action("reindex_task", status="ok")
    assert recorded_metrics.metric_value("genapp_action_size_total", name="reindex_task") > 1000
