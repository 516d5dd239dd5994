"""The object that a tracked block is given: it reads the clock twice and tells the action how the block ended.

There are a few kinds, chosen when an action is bound, so that no block pays for what it doesn't use: one that tells
every recorder, one that appends to the list of a recorder that takes durations in batches, one where nothing is
recorded; and the first two also as trackers that can be found by ``current_action()``.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from llm_common.contract import FOLD_AT, Status

OK, ERROR = Status.OK, Status.ERROR

ENDED: list[float] = []
"""What an ended tracker holds in place of its action's list; nothing is ever put into it."""


class Action(Protocol):
    """What a tracker reports to: one action name as the backends bound it."""

    name: str
    ok: list[float]
    """What a tracker holds while its block runs and hasn't failed; sampled actions collect their seconds in it."""
    error: list[float]
    """The same for a block that ``to_fail()`` was called in."""

    def fold(self) -> None:
        """Let the recorder take the seconds that were collected."""

    def finished(
        self, tracker: "ActionTracker", status: Status, seconds: float, exception: BaseException | None
    ) -> None:
        """Record the end of the block, ``seconds`` after its start; ``exception``, if any, overrules ``status``."""

    def sized(self, tracker: "ActionTracker", amount: float) -> None:
        """Record a size."""

    def moved(self, by: int) -> None:
        """Add ``by`` to the number of actions in progress."""

    def first_item(self, seconds: float) -> None:
        """Record how long after the start the first item was streamed."""

    def tokens(self, model: str, amounts: Mapping[str, int]) -> None:
        """Record the tokens of an LLM call, by type."""

    def misused(self, operation: str, problem: str) -> None:
        """Report that ``operation`` was called where it has no effect."""


class ActionTracker:
    """One action under way. Made by ``action_tracking(name)``; a context manager that yields itself.

    Attributes whose names begin with an underscore are for the package alone.
    """

    __slots__ = ("_action", "_error_name", "_outer", "_samples", "_size", "_started", "_streamed")

    _action: Action
    _error_name: str
    _outer: "ActionTracker"
    """The tracker that was current when the block began, where trackers can be found."""
    _samples: list[float] | None
    """``None`` before the block, ``action.ok`` or ``action.error`` while it runs, :data:`ENDED` after it."""
    _size: float | None
    _started: float
    _streamed: bool
    """Set once the first item was streamed."""

    def __enter__(self) -> Self:
        if self._samples is not None:
            raise_in_use(self)
        self._samples = self._action.ok
        self._size = None
        self._started = perf_counter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._started
        action = self._action
        status = OK if self._samples is action.ok else ERROR
        self._samples = ENDED
        action.finished(self, status, seconds, exception)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return what ``function`` returns, called in this tracker's block."""
        with self:
            return function(*args, **kwargs)

    def _step(self) -> AbstractContextManager[None]:
        """Return what makes this tracker the current one for one step of a generator, to be entered for each."""
        return Step(self)

    @property
    def _running(self) -> bool:
        return self._samples is not None and self._samples is not ENDED

    def size(self, amount: float) -> None:
        """Add ``amount`` to ``genapp_action_size_total``, at once, in whatever unit the caller chose (rows, bytes, …).

        May be called many times: a long job shows its progress. An amount that is negative, not finite or not a number
        is left out and logged once, and so is any outside of the block; in strict mode both raise
        :class:`~llm_common.errors.TrackingError`.
        """
        if not self._running:
            self._action.misused("size", "size() was called outside the block, where it belongs to no action")
        else:
            self._action.sized(self, amount)

    def to_fail(self, error_name: str = "") -> None:
        """Count the action as ``error`` even if its block ends normally.

        ``error_name`` appears in recorded events and never in a label. After the end of the block it is too late: that
        is logged once; in strict mode it raises :class:`~llm_common.errors.TrackingError`.
        """
        if not self._running:
            self._action.misused("to_fail", "to_fail() was called outside the block, where it can't change the status")
        else:
            self._samples = self._action.error
            self._error_name = error_name

    def tokens(self, model: str, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - what users call them
        """Add the tokens of an LLM call to ``genapp_llm_tokens_total``: what the model was given, and what it gave.

        May be called many times; ``model`` is the name of a model, and never from user data. Does nothing unless the
        setting ``extra_metrics`` has ``llm_tokens``. Amounts that are negative or no numbers are left out and logged
        once, and so are any outside of the block; in strict mode both raise
        :class:`~llm_common.errors.TrackingError`.
        """
        if not self._running:
            self._action.misused("tokens", "tokens() was called outside the block, where it belongs to no action")
        else:
            self._action.tokens(model, {"input": input, "output": output})

    def first_item(self) -> None:
        """Record in ``genapp_action_first_item_sec`` how long it took until something could be shown to who waits.

        The first call counts, any others do nothing; so do all unless the setting ``extra_metrics`` has ``first_item``.
        Decorated generators do it by themselves. Outside of the block it is misuse, as :meth:`size` is.
        """
        if not self._running:
            self._action.misused("first_item", "first_item() was called outside the block, where nothing is streamed")
        elif not hasattr(self, "_streamed"):
            self._streamed = True
            self._action.first_item(perf_counter() - self._started)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise :class:`TypeError`: a tracker stands in a ``with`` statement and is no decorator."""
        raise TypeError(
            f"action_tracking({self._action.name!r}) stands in a with statement; "
            f"to decorate a function write @action_tracking_decorator({self._action.name!r})"
        )

    if not TYPE_CHECKING:  # pragma: no branch - type checkers are to refuse it by themselves

        def __aenter__(self) -> NoReturn:
            """Raise :class:`TypeError`: nothing here is awaited, in async code as well."""
            name = self._action.name
            raise TypeError(f"write a plain with, also in async code: with action_tracking({name!r}) as tracker:")

        __aexit__ = __aenter__

    def __repr__(self) -> str:
        return f"<ActionTracker {self._action.name!r} {'running' if self._running else 'not running'}>"


def raise_in_use(tracker: ActionTracker) -> NoReturn:
    """Raise :class:`RuntimeError`: a tracker was entered a second time."""
    name = tracker._action.name
    raise RuntimeError(
        f"this tracker of the action {name!r} is in use already or was used before; "
        f"begin each block with its own: with action_tracking({name!r}) as tracker:"
    )


class SampledTracker(ActionTracker):
    """The tracker where a single backend takes durations in batches: ending a block appends to a list."""

    __slots__ = ()

    def __enter__(self) -> Self:  # without the size, which only events need
        if self._samples is not None:
            raise_in_use(self)
        self._samples = self._action.ok
        self._started = perf_counter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._started
        samples = self._samples
        self._samples = ENDED
        if exc_type is None:
            samples.append(seconds)  # type: ignore[union-attr] # a block that ends was entered
            if len(samples) >= FOLD_AT:  # type: ignore[arg-type]
                self._action.fold()
        else:
            self._action.finished(self, OK, seconds, exception)

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        # What `with self:` does, without the calls that it makes.
        action = self._action
        self._samples = action.ok
        self._started = perf_counter()
        try:
            result = function(*args, **kwargs)
        except BaseException as exception:
            self.__exit__(type(exception), exception, None)
            raise
        seconds = perf_counter() - self._started
        samples = self._samples
        self._samples = ENDED
        samples.append(seconds)
        if len(samples) >= FOLD_AT:
            action.fold()
        return result


class Findable(ActionTracker):
    """Mixed into a tracker: while its block runs, ``current_action()`` finds it."""

    __slots__ = ()

    def __enter__(self) -> Self:
        if self._samples is not None:
            raise_in_use(self)
        outer = get_current()
        if outer._samples is ENDED:
            outer = nearest_running(outer._outer)
        elif outer._outer._samples is ENDED:
            outer._outer = nearest_running(outer._outer)  # keeps no chain of ended trackers alive
        self._outer = outer
        self._samples = self._action.ok
        self._size = None
        set_current(self)
        self._started = perf_counter()
        return self

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with self:
            return function(*args, **kwargs)


class FindableTracker(Findable, ActionTracker):
    """An :class:`ActionTracker` that ``current_action()`` finds."""

    __slots__ = ()


class FindableSampledTracker(Findable, SampledTracker):
    """A :class:`SampledTracker` that ``current_action()`` finds."""

    __slots__ = ()


class ProgressTracker(ActionTracker):
    """The tracker where actions in progress are counted."""

    __slots__ = ()

    def __enter__(self) -> Self:
        if self._samples is not None:
            raise_in_use(self)
        self._action.moved(1)  # first, since it may raise in strict mode: then the block has not begun
        return super().__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(exc_type, exception, traceback)
        finally:
            self._action.moved(-1)


class FindableProgressTracker(ProgressTracker, Findable):
    """A :class:`ProgressTracker` that ``current_action()`` finds."""

    __slots__ = ()


class Step:
    """Makes a generator's tracker current for the length of one step; used again for each step.

    What is current at the end of a step, such as an action that the body has begun, is so again in the next one.
    """

    __slots__ = ("_before", "_inside")

    def __init__(self, tracker: ActionTracker) -> None:
        tracker._outer = nearest_running(get_current())  # keeps no chain of ended trackers alive
        self._inside = tracker

    def __enter__(self) -> None:
        self._before = get_current()
        set_current(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = get_current()
        set_current(self._before)


class SilentTracker(ActionTracker):
    """The tracker where nothing is recorded at all: it reads no clock and leaves the current tracker alone."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return function(*args, **kwargs)

    def _step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def size(self, amount: float) -> None:
        """Check ``amount`` as any tracker does, and add it nowhere."""
        self._action.sized(self, amount)

    def to_fail(self, error_name: str = "") -> None:
        """Do nothing: no status is recorded."""

    def tokens(self, model: str, *, input: int = 0, output: int = 0) -> None:  # noqa: A002 - what users call them
        """Do nothing: nothing is recorded."""

    def first_item(self) -> None:
        """Do nothing: nothing is recorded."""


class NoAction(SilentTracker):
    """The current tracker outside of any action: it does nothing."""

    __slots__ = ()

    def size(self, amount: float) -> None:
        """Do nothing: there is no action to which the amount could be added."""

    def __repr__(self) -> str:
        return "<NoAction>"


NO_ACTION = NoAction()
NO_ACTION._samples = []  # not ENDED, so that whoever looks for the nearest running tracker stops here
NO_ACTION._outer = NO_ACTION

# The current tracker of each thread and task. Ending a block does not put the variable back: the tracker is marked as
# ended, and whoever looks next steps over it to the nearest one that still runs. That is cheaper than resetting a
# token, and it stays right where a reset fails: in generators that are closed from another context, and where blocks
# end in another order than they began.
current: ContextVar[ActionTracker] = ContextVar("llm_common_current_action", default=NO_ACTION)
get_current = current.get
set_current = current.set


def nearest_running(tracker: ActionTracker) -> ActionTracker:
    """Return ``tracker`` if it still runs, else the nearest one around it that does."""
    while tracker._samples is ENDED:
        tracker = tracker._outer
    return tracker
