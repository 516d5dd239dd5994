"""What stands in for the language model: a few lines that decide what to say next in a conversation.

It behaves as a model with tools does. A question is first answered with the wish to search; what the search found is
then boiled down to the sentences that fit the question.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_common.demo.words import keywords

NOTHING_FOUND = "I am sorry, I found nothing about that. Shall I call a colleague?"
SENTENCE = re.compile(r"(?<=[.!?])\s+")

Message = Mapping[str, Any]


def next_message(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message that follows ``messages``: a call of the first of ``tools``, or an answer."""
    question = next((str(one["content"]) for one in reversed(messages) if one["role"] == "user"), "")
    found = [str(one["content"]) for one in messages if one["role"] == "tool"]
    if tools and not found:
        arguments = json.dumps({"query": " ".join(keywords(question))})
        function = {"name": tools[0]["function"]["name"], "arguments": arguments}
        call = {"id": f"call_{len(messages)}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": summarise(question, " ".join(found)) or NOTHING_FOUND}


def summarise(question: str, text: str, limit: int = 2) -> str:
    """Return the ``limit`` sentences of ``text`` that share most words with ``question``, in their own order."""
    wanted = set(keywords(question))
    sentences = SENTENCE.split(text.strip())
    best = sorted(sentences, key=lambda sentence: -len(wanted.intersection(keywords(sentence))))[:limit]
    return " ".join(sentence for sentence in sentences if sentence in best)


def tokens(text: str) -> int:
    """Return about how many tokens ``text`` has: its words."""
    return len(text.split())
