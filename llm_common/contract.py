"""What a backend must be: the few types that the facade and its backends exchange.

The facade asks a backend once for a *recorder* per action name or HTTP series, keeps it, and from then on calls nothing
but the recorder. A recorder therefore holds everything that can be resolved in advance: the series, its label values,
the lock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol


class Status(StrEnum):
    """How an action ended: the values of the label ``status``."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"


class ActionRecorder(Protocol):
    """The handle through which a backend receives the measurements of one action name.

    Calls come from any thread, several at a time, and also from signal handlers and ``__del__``; a recorder must
    neither lose nor double any. It may raise: the fault is logged and the application never sees it,
    and a backend that raises again and again is left alone for a while.
    """

    def finished(self, status: Status, seconds: float) -> object:
        """Count one ended action and observe its duration, ``seconds`` ≥ 0. What is returned is ignored."""

    def sized(self, amount: float) -> object:
        """Add ``amount`` (finite, ≥ 0, in units chosen by the caller) to the action's size."""


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """One ended action, as plain data. Equality ignores what a test can't foresee: the time, the error's name."""

    name: str
    status: Status | str = Status.OK
    size: float | None = None
    """The sum of all that ``tracker.size()`` was given; ``None`` where it wasn't called."""
    seconds: float = field(default=0.0, compare=False)
    error_name: str = field(default="", compare=False)
    """The class name of the exception that ended the block, or what ``to_fail()`` was given."""


class SamplingActionRecorder(ActionRecorder, Protocol):
    """A recorder that takes the durations of actions in batches, for the price of appending to a list.

    Where it belongs to the only backend that recorded an action, the facade appends the seconds of each action that
    ended normally to :attr:`ok`, or to :attr:`error` after ``to_fail()``, and calls :meth:`fold` when a list has
    :data:`FOLD_AT` entries. ``finished`` is called for all others, and wherever several backends record.
    """

    ok: list[float]
    error: list[float]

    def fold(self) -> object:
        """Take from the lists what is in them. Never called with a promise that no other thread does the same."""


FOLD_AT = 256
"""How many samples a list holds before it is folded. More would cost memory per action, fewer would cost time."""


class ActionEventRecorder(Protocol):
    """The other shape a recorder may have: each ended action whole, for logs, traces and tests.

    The facade calls ``ended`` where an object has it, and ``finished`` otherwise.
    """

    def ended(self, event: ActionEvent) -> object:
        """Record one ended action."""

    def sized(self, amount: float) -> object:
        """Add ``amount`` at once, as :meth:`ActionRecorder.sized`; the event repeats the sum at the end."""


class MetricRecorder(Protocol):
    """The handle through which a backend receives what one series of a metric beside the contract measures.

    What :class:`ActionRecorder` says of threads, signal handlers and exceptions holds here too.
    """

    def record(self, amount: float) -> object:
        """Add ``amount`` to a counter (≥ 0) or a gauge, or observe it in a histogram, by the kind of the metric."""


class HttpSeries(NamedTuple):
    """The labels of one HTTP series, besides ``env`` and ``app``."""

    method: str
    """Upper case; ``_OTHER`` for one that the HTTP standards don't define."""
    status: str
    """Three digits, or ``error``, ``timeout`` or ``cancelled`` where there was no response."""
    resource: str
    """The route's template, or the path without what varies."""
    app_type: str
    """``app_api`` for requests that are served; for those that are sent, what they are sent to."""


ExemplarSource = Callable[[], Mapping[str, str] | None]
"""What tells the labels of an exemplar for the measurement that was made just now, such as ``trace_id``, or ``None``.

Called by backends that show exemplars, whenever they record, in the thread and context that recorded.
"""


class HttpRecorder(Protocol):
    """The handle through which a backend receives the exchanges of one HTTP series.

    What :class:`ActionRecorder` says of threads, signal handlers and exceptions holds here too.
    """

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> object:
        """Count one exchange: its duration, ``seconds`` ≥ 0, and the sizes of both bodies in bytes, ≥ 0."""


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """One HTTP exchange that ended, as plain data. Equality ignores the time, which a test can't foresee."""

    method: str
    status: str
    resource: str
    app_type: str
    request_bytes: int = 0
    response_bytes: int = 0
    seconds: float = field(default=0.0, compare=False)
