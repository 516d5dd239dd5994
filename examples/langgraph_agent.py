"""An agent of LangGraph that looks orders up, and what its runs and its calls of the model took.

The environment says which model answers::

    OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=… MODEL=… python examples/langgraph_agent.py 'And order 7?'

Each argument is a question. After the last answer the metrics are printed.
"""

import os
import sys
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from openai import APIError

from llm_common import configure
from llm_common.integrations.langchain import ActionTrackingCallback
from llm_common.prometheus import render_metrics

ORDERS = {7: "on its way", 8: "delivered"}


@tool
def order_status(order: int) -> str:
    """Return the status of an order."""
    return ORDERS.get(order, "unknown")


def support_agent() -> Any:
    """Return a graph in which the model and its tool have turns: each run of it is counted as ``support_agent``."""
    # The key is read by the model itself, from OPENAI_API_KEY.
    model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-4.1-mini")).bind_tools([order_status])

    def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("tools", ToolNode([order_status]))
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", tools_condition)
    graph.add_edge("tools", "answer")
    return graph.compile(name="support")


def main(questions: list[str]) -> None:
    """Let the agent answer every question, and print what it took."""
    configure(app="langgraph_agent", extra_metrics="all")
    agent = support_agent()
    tracking = ActionTrackingCallback(llm_call="support_llm_call")
    for question in questions:
        try:
            answered = agent.invoke({"messages": [HumanMessage(question)]}, {"callbacks": [tracking]})
        except APIError:  # counted, the run and the call alike, with the status ``error``
            print("no answer: the model failed")
        else:
            print(answered["messages"][-1].content)
    print(render_metrics()[0].decode())


if __name__ == "__main__":
    main(sys.argv[1:])
