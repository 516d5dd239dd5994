"""Backends that failed: they are watched from then on, left alone where they fail again and again, and tried later.

A backend that never failed has nothing to do with any of this: its recorders are called directly.
"""

from collections.abc import Callable
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Any, TypeVar

Result = TypeVar("Result")

MOST_FAULTS = 10
"""After so many faults in a row a backend is switched off."""

FIRST_PAUSE = 10.0
"""How long it is left alone then, in seconds; each further time that it fails, twice as long."""

LONGEST_PAUSE = 600.0

REBIND_AFTER = 1.0
"""How many seconds at least lie between two times that everything is bound anew because of one backend."""


class Health:
    """How one backend does that failed at least once."""

    __slots__ = ("_forget", "_pause", "_rebound", "faults", "inside", "retry_at")

    def __init__(self, forget: Callable[[], object]) -> None:
        self._forget = forget
        self._pause = FIRST_PAUSE
        self._rebound: float | None = None
        self.faults = 0
        """How many there were since it last worked."""
        self.retry_at = 0.0
        """When it is asked again, by the monotonic clock."""
        self.inside: set[int] = set()
        """The threads in which it records at this moment."""

    def failed(self, binding: bool) -> bool:
        """Take note of a fault, of a hook if ``binding``. Return whether the backend is switched off by it."""
        self.faults += 1
        now = monotonic()
        if (binding or self.faults >= MOST_FAULTS) and now >= self.retry_at:
            self.retry_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.rebind()
        return self.faults == MOST_FAULTS

    def worked(self) -> None:
        """Take note that it recorded something."""
        if self.faults >= MOST_FAULTS:
            self._pause = FIRST_PAUSE
        self.faults = 0

    @property
    def due(self) -> bool:
        """Whether it is time to ask it again."""
        return monotonic() >= self.retry_at

    @property
    def off(self) -> bool:
        """Whether it is left alone for now."""
        return self.faults >= MOST_FAULTS and not self.due

    def rebind(self) -> None:
        """Let everything be bound anew at its next use, with this backend watched."""
        now = monotonic()
        if self._rebound is None or now - self._rebound >= REBIND_AFTER:
            self._forget()
            self._rebound = now  # last, for where the stack is at its end even this may fail


class Watched:
    """A recorder of a backend that failed before, or the place of one that it failed to give: then ``None``."""

    def __init__(self, health: Health, recorder: Any) -> None:
        self.recorder = recorder
        self._health = health
        for method in ("ended", "finished", "sized", "record"):
            function = getattr(recorder, method, None)
            if recorder is None or function is not None:
                setattr(self, method, partial(self._call, function))

    def _call(self, function: Callable[..., object] | None, *args: object) -> None:
        health = self._health
        if function is None:
            if health.due:
                health.rebind()
            return
        thread = get_ident()
        # Whoever comes back from inside of it is most likely a backend that tracks what it does, without end.
        if health.off or thread in health.inside:
            return
        try:
            health.inside.add(thread)  # in here, since a signal handler may raise as soon as that is done
            function(*args)
        finally:
            health.inside.discard(thread)
        health.worked()


def bare(recorder: object) -> object:
    """Return ``recorder`` as its backend gave it."""
    return recorder.recorder or recorder if isinstance(recorder, Watched) else recorder


def not_nested(function: Callable[[], Result]) -> Callable[[], Result | None]:
    """Return what calls ``function``, and returns ``None`` where it is called from inside of that."""
    inside: set[int] = set()

    def call() -> Result | None:
        thread = get_ident()
        if thread in inside:
            return None
        try:
            inside.add(thread)  # in here, since a signal handler may raise as soon as that is done
            return function()
        finally:
            inside.discard(thread)

    return call
