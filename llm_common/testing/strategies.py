"""Hypothesis strategies for property tests of code that tracks actions: names, and whole programs of actions."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from hypothesis import strategies as st

from llm_common.contract import ActionEvent, Status
from llm_common.tracking import action_tracking

SUFFIXES = ("_handler", "_task", "_llm_call", "_agent")


def action_names() -> st.SearchStrategy[str]:
    """Draw names as the documentation asks for: ``snake_case`` with one of the four suffixes."""
    words = st.from_regex(r"[a-z][a-z0-9]{0,7}(_[a-z0-9]{1,8}){0,2}", fullmatch=True)
    return st.builds(str.__add__, words, st.sampled_from(SUFFIXES))


def hostile_names() -> st.SearchStrategy[str]:
    """Draw any text that isn't empty: quotes, backslashes, newlines, emoji and lone surrogates included."""
    everything = st.text(st.characters(), min_size=1)
    special = st.text(st.sampled_from('"\\\n\r\t{}=, \x00\u2028😀\ud800é'), min_size=1)
    return everything | special


def sizes() -> st.SearchStrategy[float]:
    """Draw what ``tracker.size()`` accepts: finite numbers that aren't negative."""
    return st.integers(0, 10**9) | st.floats(0, 1e9, allow_nan=False)


@dataclass(frozen=True)
class TrackedAction:
    """One action to perform: how it ends, the sizes that it gives, and the actions inside it."""

    name: str
    status: Status = Status.OK
    by_exception: bool = False
    """Whether an ``error`` comes from an exception rather than from ``to_fail()``."""
    sizes: tuple[float, ...] = ()
    inner: "tuple[TrackedAction, ...]" = ()

    def perform(self) -> None:
        """Track this action and those inside it."""
        try:
            with action_tracking(self.name) as tracker:
                for amount in self.sizes:
                    tracker.size(amount)
                for action in self.inner:
                    action.perform()
                if self.status is Status.CANCELLED:
                    raise asyncio.CancelledError
                if self.status is Status.ERROR and self.by_exception:
                    raise RuntimeError("an action that fails on purpose")
                if self.status is Status.ERROR:
                    tracker.to_fail("on_purpose")
        except (asyncio.CancelledError, RuntimeError):
            pass

    def events(self) -> Iterator[ActionEvent]:
        """Yield the events that follow from :meth:`perform`, in order."""
        for action in self.inner:
            yield from action.events()
        # One by one, as the tracker adds: from Python 3.12 on, sum() would round differently.
        yield ActionEvent(self.name, self.status, reduce(add, self.sizes) if self.sizes else None)


def actions(names: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[TrackedAction]:
    """Draw actions, some with others inside; ``names`` defaults to :func:`action_names`."""
    names = action_names() if names is None else names

    def action(inner: st.SearchStrategy[Sequence[TrackedAction]]) -> st.SearchStrategy[TrackedAction]:
        return st.builds(
            TrackedAction,
            names,
            st.sampled_from(Status),
            st.booleans(),
            st.lists(sizes(), max_size=3).map(tuple),
            inner.map(tuple),
        )

    return st.recursive(action(st.just(())), lambda inner: action(st.lists(inner, max_size=3)), max_leaves=5)
