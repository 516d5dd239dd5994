"""An action whose beginning and end are different callbacks or steps, as those of LLM calls and of agents are."""

import asyncio
import logging
import sys
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import ref

from llm_common.action_names import AGENT, snake_case, with_suffix
from llm_common.tracker import ActionTracker, get_current, set_current
from llm_common.tracking import action_tracking

logger = logging.getLogger("llm_common")

UNKNOWN_MODEL = "unknown"
"""The name of a model that nobody tells."""

COVERING: "ContextVar[Cover | None]" = ContextVar("llm_common_covering", default=None)
"""The action that began last in this context and covers the calls of clients."""

HINTED: set[str] = set()
"""The parameters that a hint has named."""


def named(text: str, suffix: str, parameter: str) -> str:
    """Return the name of an action for what a framework calls ``text``, be it called an agent or not.

    Where nothing of it can stand in a name, a hint is logged, once for each ``parameter`` that gives another name.
    """
    words = snake_case(text).removesuffix(AGENT)
    if not words and parameter not in HINTED:
        HINTED.add(parameter)
        logger.warning(
            "%.100r has no letter or digit of ASCII, of which the names of actions are made, so it is counted as "
            "unnamed%s; name it with %s",
            text,
            suffix,
            parameter,
        )
    return with_suffix(words, suffix)


def amount(value: Any) -> int:
    """Return a number of tokens as a provider reports it; 0 for what is none."""
    return value if isinstance(value, int) and value > 0 else 0


class OpenAction:
    """An action that has begun; :meth:`end` ends it, once.

    It is never the current action: what runs between its callbacks is the application's own business.
    """

    __slots__ = ("__weakref__", "_covers", "_handled", "_open", "_tracker", "_usage")

    def __init__(self, name: str) -> None:
        self._covers = False
        self._open: list[ActionTracker] = []
        self._usage: tuple[str, int, int] | None = None
        self.begin(name)

    def begin(self, name: str) -> None:
        """Begin the action; one that never began is none, whatever it is told."""
        before = get_current()
        self._tracker = action_tracking(name).__enter__()
        set_current(before)
        self._open.append(self._tracker)

    def cover(self) -> None:
        """Count the calls of tracked clients as part of this one: those made in this context, until :meth:`uncover`.

        The variable is never set back, since the end may come in another context; an action that has ended covers none.
        """
        self._covers = True
        self._handled = sys.exc_info()[1]
        COVERING.set(Cover(ref(self), nearest()))  # a strong reference would keep one alive that nobody ends

    def uncover(self) -> None:
        """Cover nothing any more: what is called from now on belongs to somebody else."""
        self._covers = False

    @property
    def may_cover(self) -> bool:
        """Whether it covers calls, as far as anybody has told."""
        return self._covers and bool(self._open)

    @property
    def covers(self) -> bool:
        """Whether it covers a call that is made now: not where an exception is handled that may have ended it."""
        handled = sys.exc_info()[1]
        return self.may_cover and (handled is None or handled is self._handled)

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


class Cover(NamedTuple):
    """An action that covers the calls of clients, and the one inside of which it began."""

    action: ref[OpenAction]
    around: "Cover | None"


def nearest() -> Cover | None:
    """Return the action that began last in this context, of those that cover yet."""
    cover = COVERING.get()
    while cover is not None:
        action = cover.action()
        if action is not None and action.may_cover:
            break
        cover = cover.around
    return cover


def covering() -> OpenAction | None:
    """Return the action that covers a call of a client which is made now."""
    cover = nearest()
    action = cover.action() if cover is not None else None
    return action if action is not None and action.covers else None
