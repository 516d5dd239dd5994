"""The examples that ask a model run as they stand, with a model on loopback, and print the metrics they announce."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_common.testing.conformance.http_client import Server, serving
from openai_server import GIVEN, SAID, WORDS, Fail, ModelServer, Say, Use
from scraping import Series, parsed, series

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.e2e


@pytest.fixture
def model() -> ModelServer:
    return ModelServer()


@pytest.fixture
def server(model: ModelServer) -> Iterator[Server]:
    with serving(model) as server:
        yield server


def asked(example: str, server: Server) -> tuple[list[str], dict[Series, float]]:
    """Run an example with two questions, and return what it answers and what it says that took."""
    variables = {"OPENAI_BASE_URL": server.url("/v1"), "OPENAI_API_KEY": "hidden", "MODEL": "small"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), "Where is order 7?", "And now?"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, _, metrics = done.stdout.partition("# HELP")
    return answers.splitlines(), parsed("# HELP" + metrics)


def expect(metrics: dict[Series, float], app: str, name: str, calls: int, *, first_items: int) -> None:
    """Demand so many good calls of that name with their tokens, and one that failed."""
    about = {"env": "dev", "app": app}
    assert metrics[series("genapp_action_count_total", name=name, status="ok", **about)] == calls
    assert metrics[series("genapp_action_count_total", name=name, status="error", **about)] == 1
    tokens = {"name": name, "model": "small", **about}
    assert metrics[series("genapp_llm_tokens_total", token_type="input", **tokens)] == calls * GIVEN
    assert metrics[series("genapp_llm_tokens_total", token_type="output", **tokens)] == calls * SAID
    assert metrics.get(series("genapp_action_first_item_sec_count", name=name, **about), 0) == first_items
    names = {dict(labels)["name"] for metric, labels in metrics if metric == "genapp_action_count_total"}
    assert names <= {name, "support_agent"}


def test_a_chat_with_the_openai_sdk(server: Server, model: ModelServer) -> None:
    model.script(Say(), Fail("400 Bad Request"))
    answers, metrics = asked("openai_chat.py", server)
    assert answers == ["".join(WORDS), "no answer: the model failed"]
    expect(metrics, "openai_chat", "chat_llm_call", 1, first_items=1)


@pytest.mark.parametrize(("app", "first_items"), [("langgraph_agent", 0), ("openai_agent", 2)])
def test_an_agent(app: str, first_items: int, server: Server, model: ModelServer) -> None:
    model.script(Use("order_status", {"order": 7}), Say(), Fail("400 Bad Request"))
    answers, metrics = asked(f"{app}.py", server)
    assert answers == ["".join(WORDS), "no answer: the model failed"]
    expect(metrics, app, "support_llm_call", 2, first_items=first_items)
    for status in ("ok", "error"):
        runs = series("genapp_action_count_total", name="support_agent", status=status, env="dev", app=app)
        assert metrics[runs] == 1
