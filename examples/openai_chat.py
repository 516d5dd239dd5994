"""Ask a model with the OpenAI SDK, read its answers as they come, and see what they took.

The environment says which model answers::

    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=… MODEL=… python examples/openai_chat.py 'Who are you?'

Each argument is a question. After the last answer the metrics are printed.
"""

import os
import sys

from openai import APIError, OpenAI

from llm_common import configure
from llm_common.integrations.openai import track_client
from llm_common.prometheus import render_metrics

MODEL = os.environ.get("MODEL", "gpt-4.1-mini")


def answer(client: OpenAI, question: str) -> None:
    """Print an answer, word by word: one ``chat_llm_call``, from the request to the last chunk."""
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},  # else no tokens are known
    )
    with stream:
        for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
    print()


def main(questions: list[str]) -> None:
    """Answer every question, and print what it took."""
    configure(app="openai_chat", extra_metrics="all")
    with track_client(OpenAI(), "chat_llm_call") as client:  # the key is read by the client itself
        for question in questions:
            try:
                answer(client, question)
            except APIError:  # counted, with the status ``error``
                print("no answer: the model failed")
    print(render_metrics()[0].decode())


if __name__ == "__main__":
    main(sys.argv[1:])
