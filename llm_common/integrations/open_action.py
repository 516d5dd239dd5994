"""An action whose beginning and end are different callbacks or steps, as those of LLM calls and of agents are."""

import asyncio
from typing import Any

from llm_common.tracker import ActionTracker, get_current, set_current
from llm_common.tracking import action_tracking

UNKNOWN_MODEL = "unknown"
"""The name of a model that nobody tells."""


def amount(value: Any) -> int:
    """Return a number of tokens as a provider reports it; 0 for what is none."""
    return value if isinstance(value, int) and value > 0 else 0


class OpenAction:
    """An action that has begun; :meth:`end` ends it, once.

    It is never the current action: what runs between its callbacks is the application's own business.
    """

    __slots__ = ("__weakref__", "_open", "_tracker", "_usage")

    def __init__(self, name: str) -> None:
        self._open: list[ActionTracker] = []
        self._usage: tuple[str, int, int] | None = None
        before = get_current()
        self._tracker = action_tracking(name).__enter__()
        set_current(before)
        self._open.append(self._tracker)

    def first_item(self) -> None:
        """Tell that the first item of a stream is there; every call but the first does nothing."""
        if self._open:
            self._tracker.first_item()

    def used(self, model: Any, given: Any, answered: Any) -> None:
        """Take the tokens of the whole call, as they are known by now: the last word counts."""
        name = model if isinstance(model, str) and model else UNKNOWN_MODEL
        self._usage = name, amount(given), amount(answered)

    def fail(self, error_name: str = "") -> None:
        """Count the action as ``error`` if it ends normally."""
        if self._open:
            self._tracker.to_fail(error_name)

    def end(self, exception: BaseException | None = None) -> None:
        """End the action, as ``exception`` has it; every call but the first does nothing."""
        try:
            tracker = self._open.pop()  # atomic, whichever threads end it at once
        except IndexError:
            return
        try:
            if self._usage is not None:
                model, given, answered = self._usage
                tracker.tokens(model, input=given, output=answered)
        finally:
            tracker.__exit__(type(exception) if exception is not None else None, exception, None)

    def cancel(self) -> None:
        """End the action as ``cancelled``, where nobody raises anything: whoever waited has left."""
        if self._open:
            self.end(asyncio.CancelledError())

    def __del__(self) -> None:
        self.cancel()
