"""The agent service of the examples, in a process of its own, with a model on loopback."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_common.testing.conformance.http_client import serving
from openai_server import GIVEN, SAID, WORDS, Fail, ModelServer, Use
from scraping import parsed, series

SERVICE = Path(__file__).parents[2] / "examples" / "agent_service.py"
pytestmark = pytest.mark.e2e


@pytest.fixture
def model() -> ModelServer:
    return ModelServer()


@pytest.fixture
def service(model: ModelServer) -> Iterator[str]:
    """Run the service, and yield where it is."""
    with serving(model) as server:
        variables = {
            "OPENAI_BASE_URL": server.url("/v1"),
            "OPENAI_API_KEY": "hidden",
            "MODEL": "small",
            "PORT": "0",
            "LLM_COMMON_ENV": "preprod",
        }
        process = subprocess.Popen(
            [sys.executable, str(SERVICE)], env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        with process, process.stderr:
            try:
                yield next(
                    found[1] for line in process.stderr if (found := re.search(r"running on (http://\S+)", line))
                )
            finally:
                process.terminate()


def test_the_service_counts_what_its_agent_does(service: str, model: ModelServer) -> None:
    model.script(Use("order_status", {"order": 7}))
    with httpx2.Client(base_url=service) as client:
        answer = client.get("/ask", params={"question": "Where is order 7?"})
        assert answer.json() == {"answer": "".join(WORDS)}
        model.script(Fail("400 Bad Request"))
        assert client.get("/ask", params={"question": "And now?"}).status_code == 502
        scrape = parsed(client.get("/metrics/").text)

    labels: dict[str, Any] = {"env": "preprod", "app": "agent_service"}
    assert scrape[series("genapp_action_count_total", name="support_agent", status="ok", **labels)] == 1
    assert scrape[series("genapp_action_count_total", name="support_agent", status="error", **labels)] == 1
    assert scrape[series("genapp_action_count_total", name="support_llm_call", status="ok", **labels)] == 2
    assert scrape[series("genapp_action_count_total", name="support_llm_call", status="error", **labels)] == 1
    http: dict[str, Any] = {"method": "POST", "resource": "v1/chat/completions", "app_type": "llm", **labels}
    assert scrape[series("genapp_http_requests_total", status="200", **http)] == 2
    assert scrape[series("genapp_http_requests_total", status="400", **http)] == 1
    asked: dict[str, Any] = {"method": "GET", "resource": "ask", "app_type": "app_api", **labels}
    assert scrape[series("genapp_http_requests_total", status="200", **asked)] == 1
    assert scrape[series("genapp_http_requests_total", status="502", **asked)] == 1
    tokens: dict[str, Any] = {"name": "support_llm_call", "model": "small", **labels}
    assert scrape[series("genapp_llm_tokens_total", token_type="input", **tokens)] == 2 * GIVEN
    assert scrape[series("genapp_llm_tokens_total", token_type="output", **tokens)] == 2 * SAID
    assert scrape[series("genapp_action_in_progress", name="support_agent", **labels)] == 0
