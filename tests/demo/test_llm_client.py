import asyncio

import pytest

from llm_common.demo.chance import seeded
from llm_common.demo.llm_client import LlmClient, LlmError, RateLimitedError, Reply
from llm_common.demo.llm_server import ADDRESS, LlmServer, Moods

QUESTION = {"role": "user", "content": "Do you sell tea?"}
SEARCH = {"type": "function", "function": {"name": "search_articles"}}


def complete(moods: Moods) -> Reply:
    with LlmServer(seeded(1, "LLM"), moods) as server:
        return asyncio.run(LlmClient(ADDRESS, server.port).complete([QUESTION], [SEARCH]))


def test_the_reply_tells_what_to_search() -> None:
    reply = complete(Moods(0, 0, 0, (0, 0)))
    assert [query for _, query in reply.searches] == ["sell tea"]
    assert reply.tokens > 0


def test_too_many_requests_are_an_error_of_their_own() -> None:
    with pytest.raises(RateLimitedError, match="Too Many Requests"):
        complete(Moods(0, 1, 0, (0, 0)))


def test_a_broken_server_is_an_error_with_its_status() -> None:
    with pytest.raises(LlmError, match="status 500: Internal Server Error"):
        complete(Moods(0, 0, 1, (0, 0)))
