"""The same scenario without tracking and with it, against a model on loopback: nothing else may change."""

from collections.abc import Callable
from typing import Any

from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.conformance.http_client import Server
from openai_server import ModelServer, Turn


def outcome_of(scenario: Callable[[], Any]) -> Any:
    """Return what a scenario returns, or which exception leaves it."""
    try:
        return scenario()
    except Exception as exception:
        return type(exception), str(exception)


class Comparison:
    """Runs a scenario twice, and demands the same outcome and the same requests; :attr:`recorded` is of the second."""

    def __init__(self, server: Server, model: ModelServer) -> None:
        self.server = server
        self.model = model
        self.recorded: RecordedMetrics

    def compare(self, turns: tuple[Turn, ...], play: Callable[[bool], Any]) -> Any:
        """Call ``play`` with whether it is to be tracked; return its outcome."""
        plain = self._played(turns, play, False)
        assert self.recorded.events == []
        assert self._played(turns, play, True) == plain
        return plain[0]

    def _played(self, turns: tuple[Turn, ...], play: Callable[[bool], Any], tracked: bool) -> tuple[Any, list[bytes]]:
        self.server.requests.clear()
        self.model.turns.clear()
        self.model.hanging.clear()
        self.model.script(*turns)
        with record_metrics() as self.recorded:
            outcome = outcome_of(lambda: play(tracked))
        return outcome, [request.body for request in self.server.requests]

    def expect(self, *events: tuple[str, str]) -> None:
        """Demand these names and statuses, in order, and that nothing is under way."""
        assert self.recorded.events == [ActionEvent(name, status=status) for name, status in events]
        for name, _ in events:
            assert self.recorded.metric_value("genapp_action_in_progress", name=name) == 0

    def tokens(self) -> tuple[float, float]:
        """Return the tokens of the model ``small``: those it was given, and those it said."""
        value = self.recorded.metric_value
        return (
            value("genapp_llm_tokens_total", model="small", token_type="input"),
            value("genapp_llm_tokens_total", model="small", token_type="output"),
        )

    def first_items(self, name: str) -> float:
        """Return how many times a first item was recorded."""
        return self.recorded.metric_value("genapp_action_first_item_sec_count", name=name)
