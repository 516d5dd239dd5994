"""A support agent behind FastAPI: HTTP metrics in both directions, agent runs and LLM calls, and an endpoint for them.

The environment says which model answers::

    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=… MODEL=… python examples/agent_service.py

``curl 'http://127.0.0.1:8000/ask?question=Where+is+order+7%3F'`` asks, ``/metrics`` shows what it took.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import uvicorn
from fastapi import FastAPI, HTTPException
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelAPIError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from llm_common import configure
from llm_common.integrations.asgi import MetricsMiddleware
from llm_common.integrations.httpx2 import AsyncTrackedTransport
from llm_common.integrations.pydantic_ai import track_agent
from llm_common.prometheus import metrics_asgi_app

configure(app="agent_service", extra_metrics="all")

# The key is read by the client itself, from OPENAI_API_KEY. Each attempt at a request is an HTTP exchange.
http_client = httpx2.AsyncClient(transport=AsyncTrackedTransport(app_type="llm"))
client = AsyncOpenAI(http_client=http_client)
model = OpenAIChatModel(os.environ.get("MODEL", "gpt-4.1-mini"), provider=OpenAIProvider(openai_client=client))
support = Agent(model, name="support", instructions="Answer in one sentence. Look orders up.")
support_agent = track_agent(support)

ORDERS = {7: "on its way", 8: "delivered"}


@support.tool_plain
def order_status(order: int) -> str:
    """Return the status of an order."""
    return ORDERS.get(order, "unknown")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the connections to the model when the service stops."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ask")
async def ask(question: str) -> dict[str, str]:
    """Let the agent answer."""
    try:
        result = await support_agent.run(question)
    except ModelAPIError as error:
        raise HTTPException(502, "the model doesn't answer") from error
    return {"answer": result.output}


app.mount("/metrics", metrics_asgi_app())
app.add_middleware(MetricsMiddleware)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
