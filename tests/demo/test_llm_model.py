import json

from llm_common.demo.llm_model import NOTHING_FOUND, next_message, summarise, tokens

SEARCH = {"type": "function", "function": {"name": "search_articles"}}
QUESTION = {"role": "user", "content": "When is the shop open?"}


def test_a_question_is_first_answered_with_the_wish_to_search() -> None:
    message = next_message([QUESTION], [SEARCH])
    (call,) = message["tool_calls"]
    assert (message["content"], call["function"]["name"]) == (None, "search_articles")
    assert json.loads(call["function"]["arguments"]) == {"query": "shop open"}


def test_what_the_search_found_becomes_the_answer() -> None:
    found = {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": "We sell tea. The shop is open from nine. Ring twice.",
    }
    message = next_message([QUESTION, found], [SEARCH])
    assert "The shop is open from nine." in message["content"]
    assert "tool_calls" not in message


def test_where_nothing_was_found_the_model_says_so() -> None:
    assert next_message([QUESTION, {"role": "tool", "content": ""}], [SEARCH])["content"] == NOTHING_FOUND


def test_without_tools_or_a_question_there_is_still_an_answer() -> None:
    assert next_message([{"role": "system", "content": "Be brief."}], [])["content"] == NOTHING_FOUND


def test_a_summary_keeps_the_order_of_the_sentences() -> None:
    assert (
        summarise("tea prices", "Tea is cheap. Ring twice. Prices of tea fell!") == "Tea is cheap. Prices of tea fell!"
    )


def test_tokens_are_counted() -> None:
    assert tokens("We sell tea.") == 3
