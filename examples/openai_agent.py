"""An agent of the OpenAI Agents SDK that looks orders up, and what its runs and its calls of the model took.

The environment says which model answers::

    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=… MODEL=… python examples/openai_agent.py 'And order 7?'

Each argument is a question. After the last answer the metrics are printed.
"""

import asyncio
import os
import sys

from agents import Agent, Runner, function_tool, set_default_openai_client, set_trace_processors
from openai import APIError, AsyncOpenAI

from llm_common import configure
from llm_common.integrations.openai import track_client
from llm_common.integrations.openai_agents import ActionTrackingProcessor
from llm_common.prometheus import render_metrics

ORDERS = {7: "on its way", 8: "delivered"}


@function_tool
def order_status(order: int) -> str:
    """Return the status of an order."""
    return ORDERS.get(order, "unknown")


support = Agent(
    name="support",
    instructions="Answer in one sentence. Look orders up.",
    model=os.environ.get("MODEL", "gpt-4.1-mini"),
    tools=[order_status],
)


async def answer(question: str) -> None:
    """Print an answer as it comes: one ``support_agent``, and one ``support_llm_call`` for each turn of the model."""
    result = Runner.run_streamed(support, question)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)
    print()


async def main(questions: list[str]) -> None:
    """Let the agent answer every question, and print what it took."""
    configure(app="openai_agent", extra_metrics="all")
    set_trace_processors([ActionTrackingProcessor()])  # instead of the one that sends traces to OpenAI
    # The processor counts the calls; the client, which reads its key itself, tells it when each began to answer.
    async with track_client(AsyncOpenAI()) as client:
        set_default_openai_client(client, use_for_tracing=False)
        for question in questions:
            try:
                await answer(question)
            except APIError:  # counted, the run and the call alike, with the status ``error``
                print("no answer: the model failed")
    print(render_metrics()[0].decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
