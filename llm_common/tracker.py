"""The object that a tracked block is given, and which one is current.

The current tracker of each thread and task is kept in one context variable. Ending a block does not put the variable
back: the tracker is marked as ended, and whoever looks next steps over it to the nearest one that still runs. That is
cheaper than resetting a token, and it stays right where a reset fails: in generators that are closed from another
context, and where blocks end in another order than they began.
"""

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import NoReturn, Protocol, Self


class Action(Protocol):
    """What a tracker reports to: one action name as the backends bound it."""

    @property
    def name(self) -> str:
        """The action's name."""

    def finished(self, tracker: "ActionTracker", seconds: float, exception: BaseException | None) -> None:
        """Record the end of the block, ``seconds`` after its start; ``exception`` is what left it."""

    def sized(self, tracker: "ActionTracker", amount: float) -> None:
        """Record a size."""

    def misused(self, operation: str, problem: str) -> None:
        """Report that ``operation`` was called where it has no effect."""


class ActionTracker:
    """One action under way. Made by ``action_tracking(name)``; a context manager that yields itself.

    Attributes whose names begin with an underscore are for the package alone.
    """

    __slots__ = ("_action", "_ended", "_error_name", "_failed", "_outer", "_size", "_started")

    _action: Action
    _ended: bool
    _error_name: str
    _failed: bool
    _outer: "ActionTracker"
    _size: float | None
    _started: float

    def __enter__(self) -> Self:
        if not self._ended:
            raise RuntimeError(
                f"this tracker of the action {self._action.name!r} is in use already; "
                f"begin each block with its own: with action_tracking({self._action.name!r}) as tracker:"
            )
        outer = current.get()
        while outer._ended:
            outer = outer._outer
        if outer._outer._ended:
            outer._outer = nearest_running(outer._outer)  # keeps no chain of ended trackers alive
        self._outer = outer
        self._ended = self._failed = False
        self._size = None
        current.set(self)
        self._started = perf_counter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._started
        self._ended = True
        self._action.finished(self, seconds, exception)

    def size(self, amount: float) -> None:
        """Add ``amount`` to ``genapp_action_size_total``, at once, in whatever unit the caller chose (rows, bytes, …).

        May be called many times: a long job shows its progress. An amount that is negative, not finite or not a number
        is left out and logged once; in strict mode it raises :class:`~llm_common.errors.TrackingError`.
        """
        self._action.sized(self, amount)

    def to_fail(self, error_name: str = "") -> None:
        """Count the action as ``error`` even if its block ends normally.

        ``error_name`` appears in recorded events and never in a label. After the end of the block it is too late: that
        is logged once; in strict mode it raises :class:`~llm_common.errors.TrackingError`.
        """
        if self._ended:
            self._action.misused("to_fail", "to_fail() was called outside the block, where it can't change the status")
        else:
            self._failed = True
            self._error_name = error_name

    def _step(self) -> AbstractContextManager[None]:
        """Return what makes this tracker current for one step of a generator, to be entered again for each."""
        return Step(self)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise :class:`TypeError`: a tracker stands in a ``with`` statement and is no decorator."""
        raise TypeError(
            f"action_tracking({self._action.name!r}) stands in a with statement; "
            f"to decorate a function write @action_tracking_decorator({self._action.name!r})"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._action.name!r} {'not running' if self._ended else 'running'}>"


class Step:
    """Makes a generator's tracker current for the length of one step; used again for each step."""

    __slots__ = ("_before", "_tracker")

    def __init__(self, tracker: ActionTracker) -> None:
        self._tracker = tracker

    def __enter__(self) -> None:
        self._before = current.get()
        current.set(self._tracker)

    def __exit__(self, *_: object) -> None:
        current.set(self._before)


class SilentTracker(ActionTracker):
    """The tracker where nothing is recorded at all: it reads no clock and leaves the current tracker alone."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def to_fail(self, error_name: str = "") -> None:
        """Do nothing: no status is recorded."""

    def _step(self) -> AbstractContextManager[None]:
        return nullcontext()


class NoAction(SilentTracker):
    """The current tracker outside of any action: it does nothing."""

    __slots__ = ()

    def size(self, amount: float) -> None:
        """Do nothing: there is no action to which the amount could be added."""

    def __repr__(self) -> str:
        return "<NoAction>"


NO_ACTION = NoAction()
NO_ACTION._ended = False  # so that whoever looks for the nearest running tracker stops here
NO_ACTION._outer = NO_ACTION

current: ContextVar[ActionTracker] = ContextVar("llm_common_current_action", default=NO_ACTION)


def nearest_running(tracker: ActionTracker) -> ActionTracker:
    """Return ``tracker`` if it still runs, else the nearest one around it that does."""
    while tracker._ended:
        tracker = tracker._outer
    return tracker


def current_action() -> ActionTracker:
    """Return the tracker of the innermost action that runs in this thread or task.

    Outside of any it is a tracker that does nothing, so that code deep inside an application can always write
    ``current_action().size(n)`` or ``current_action().to_fail()``.
    """
    return nearest_running(current.get())
