"""What trackers and integrations hold: one action, HTTP series or other series, with every backend's recorder of it.

Here is where a measurement meets its backends, one after the other, so that one which raises silences nobody.
That loop is written out each time: as a function of its own it made an action up to a sixth slower.
"""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from signal import getsignal, valid_signals
from threading import RLock
from typing import Any, Protocol

from llm_common.catalog import ACTION_FIRST_ITEM, ACTION_IN_PROGRESS, LLM_TOKENS, Metric
from llm_common.contract import ActionEvent, Status
from llm_common.ending import held
from llm_common.errors import shown
from llm_common.settings import Settings
from llm_common.tracker import (
    ActionTracker,
    FindableProgressTracker,
    FindableSampledTracker,
    FindableTracker,
    ProgressTracker,
    SampledTracker,
    SilentTracker,
)


class Configured(Protocol):
    """The configuration that something is bound in, as far as what is bound needs it."""

    settings: Settings
    records: bool
    """Whether any backend records anything."""

    def bind_metric(self, metric: Metric, values: tuple[str, ...]) -> "BoundMetric | None":
        """Return one series of a metric beside the contract, or ``None`` where that is switched off."""

    def classify(self, exception: BaseException) -> Status:
        """Return the status of an action that ``exception`` ended."""

    def misused(self, problem: str, key: object = ...) -> None:
        """Raise in strict mode, else log ``problem`` once per ``key``."""

    def report_fault(
        self, backend: str, operation: str, fault: BaseException, faults: list[BaseException] | None = None
    ) -> list[BaseException]:
        """Log a fault of a backend, and return ``faults`` with it; raise what is none and stops the program."""


class BoundAction:
    """One action name with all that the backends of one pipeline bound for it."""

    __slots__ = (
        *("enders", "error", "finishers", "folder", "in_progress", "name", "ok", "pipeline", "sizers"),
        "tracker_class",
    )

    def __init__(self, name: str, pipeline: Configured, recorders: Sequence[tuple[str, Any]], findable: bool) -> None:
        self.name = name
        self.pipeline = pipeline
        self.ok: list[float] = []
        self.error: list[float] = []
        self.in_progress = pipeline.bind_metric(ACTION_IN_PROGRESS, (name,))
        self.tracker_class: type[ActionTracker]
        if not pipeline.records:
            self.tracker_class = SilentTracker
        elif self.in_progress:
            self.tracker_class = FindableProgressTracker if findable else ProgressTracker
        elif len(recorders) == 1 and takes_samples(recorders[0][1]):
            self.tracker_class = FindableSampledTracker if findable else SampledTracker
            backend, recorder = recorders[0]
            self.folder = (backend, recorder.fold)
            self.ok, self.error = recorder.ok, recorder.error
        else:
            self.tracker_class = FindableTracker if findable else ActionTracker
        self.enders = tuple((backend, one.ended) for backend, one in recorders if hasattr(one, "ended"))
        self.finishers = tuple((backend, one.finished) for backend, one in recorders if not hasattr(one, "ended"))
        self.sizers = tuple((backend, one.sized) for backend, one in recorders)

    def finished(self, tracker: ActionTracker, status: Status, seconds: float, exception: BaseException | None) -> None:
        """Tell every recorder that the action ended after ``seconds``; ``exception``, if any, overrules ``status``."""
        faults: list[BaseException] | None = None
        if exception is not None:
            status = self.pipeline.classify(exception)
        for backend, finished in self.finishers:
            try:
                finished(status, seconds)
            except BaseException as fault:
                faults = self.pipeline.report_fault(backend, "finished", fault, faults)
        if self.enders:
            if exception is not None:
                error_name = type(exception).__name__
            else:
                error_name = tracker._error_name if status is Status.ERROR else ""
            event = ActionEvent(self.name, status, tracker._size, seconds, error_name)
            for backend, ended in self.enders:
                try:
                    ended(event)
                except BaseException as fault:
                    faults = self.pipeline.report_fault(backend, "ended", fault, faults)
        if faults and exception is None and self.pipeline.settings.strict:
            raise faults[0]  # never where it would replace an exception of the application

    def fold(self) -> None:
        """Let the recorder take the samples that were collected."""
        backend, fold = self.folder
        try:
            fold()
        except BaseException as fault:
            self.pipeline.report_fault(backend, "fold", fault)
            if self.pipeline.settings.strict:
                raise

    def sized(self, tracker: ActionTracker, amount: float) -> None:
        """Add ``amount`` on every recorder, or report why it can't be added."""
        number = as_size(amount)
        if number is None:
            self.misused("size", f"size({shown(amount)}) is no size; accepted: a finite number that isn't negative")
            return
        if self.enders:
            with held(size_lock):
                tracker._size = (tracker._size or 0) + number
        faults: list[BaseException] | None = None
        for backend, sized in self.sizers:
            try:
                sized(number)
            except BaseException as fault:
                faults = self.pipeline.report_fault(backend, "sized", fault, faults)
        if faults and self.pipeline.settings.strict:
            raise faults[0]

    def moved(self, by: int) -> None:
        """Add ``by`` to the number of actions in progress, where that metric is switched on."""
        self.in_progress.record(by)  # type: ignore[union-attr] # else there are other trackers

    def first_item(self, seconds: float) -> None:
        """Record that the first item was streamed so long after the start, where that metric is switched on."""
        bound = self.pipeline.bind_metric(ACTION_FIRST_ITEM, (self.name,))
        if bound:
            bound.record(seconds)

    def tokens(self, model: str, amounts: Mapping[str, int]) -> None:
        """Add tokens by their type, where that metric is switched on, or report why they can't be added."""
        for token_type, amount in amounts.items():
            number = as_size(amount)
            if number is None or not isinstance(model, str):
                self.misused(
                    "tokens",
                    f"tokens({shown(model)}, {token_type}={shown(amount)}) can't be added; "
                    "accepted: the model's name, and numbers that aren't negative",
                )
                return
            bound = self.pipeline.bind_metric(LLM_TOKENS, (self.name, token_type, model)) if number else None
            if bound:
                bound.record(number)

    def misused(self, operation: str, problem: str) -> None:
        """Raise :class:`TrackingError` in strict mode, else log the problem, once per action as a warning."""
        self.pipeline.misused(f"action {self.name!r}: {problem}", (self.name, operation))


class BoundHttp:
    """One HTTP series with all that the backends of one pipeline bound for it."""

    __slots__ = ("_finishers", "_pipeline")

    def __init__(self, pipeline: Configured, recorders: Sequence[tuple[str, Any]]) -> None:
        self._pipeline = pipeline
        self._finishers = tuple((backend, one.finished) for backend, one in recorders)

    def finished(self, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Tell every recorder that an exchange ended. A fault raises in strict mode."""
        faults: list[BaseException] | None = None
        for backend, finished in self._finishers:
            try:
                finished(seconds, request_bytes, response_bytes)
            except BaseException as fault:
                faults = self._pipeline.report_fault(backend, "finished", fault, faults)
        if faults and self._pipeline.settings.strict:
            raise faults[0]


class BoundMetric:
    """One series of a metric beside the contract, with all that the backends of one pipeline bound for it."""

    __slots__ = ("_pipeline", "_recorders")

    def __init__(self, pipeline: Configured, recorders: Sequence[tuple[str, Any]]) -> None:
        self._pipeline = pipeline
        self._recorders = tuple((backend, one.record) for backend, one in recorders)

    def record(self, amount: float) -> None:
        """Tell every recorder. A fault raises in strict mode."""
        faults: list[BaseException] | None = None
        for backend, record in self._recorders:
            try:
                record(amount)
            except BaseException as fault:
                faults = self._pipeline.report_fault(backend, "record", fault, faults)
        if faults and self._pipeline.settings.strict:
            raise faults[0]


bindings: dict[str, BoundAction] = {}
"""What the active pipeline bound for each action name; filled on first use, emptied by a change."""

http_bindings: dict[tuple[str, str, str, str], BoundHttp] = {}
"""The same for each HTTP series: method, status, resource and app_type."""


def forget_bindings() -> None:
    """Forget what was bound; called by whatever changes the active pipeline, and where one of its backends fails."""
    bindings.clear()
    http_bindings.clear()


size_lock = RLock()
"""Guards the sum that a tracker keeps for events, since several threads may share one tracker. Re-entrant because a
``__del__`` that runs meanwhile may be tracked too."""


def _after_fork_in_child() -> None:
    global size_lock
    size_lock = RLock()  # the thread that held it in the parent does not exist here


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def takes_samples(recorder: object) -> bool:
    """Return whether ``recorder`` is a :class:`~llm_common.contract.SamplingActionRecorder`, by its own class.

    An object that merely passes attributes on to one, as a filter's recorder may, wants its own methods called.
    """
    return (
        hasattr(type(recorder), "fold")
        and isinstance(getattr(recorder, "ok", None), list)
        and isinstance(getattr(recorder, "error", None), list)
    )


def stops_program(exception: BaseException) -> bool:
    """Return whether ``exception`` passes through whatever raised it, since it is no fault of that.

    A signal handler raises ``KeyboardInterrupt``, ``SystemExit`` or an exception of its own, such as that of a time
    limit, wherever the program is at the moment, and greenlets are ended and timed out wherever they wait. Everything
    else that leaves a backend is its fault, ``CancelledError`` and ``GeneratorExit`` too: no backend is awaited or
    iterated, so nobody can have thrown them in.
    """
    return (
        isinstance(exception, KeyboardInterrupt | SystemExit)
        or any(one.__module__.partition(".")[0] in GREENLETS for one in type(exception).__mro__)
        or from_signal_handler(exception)
    )


def from_signal_handler(exception: BaseException) -> bool:
    """Return whether one of the program's signal handlers raised ``exception``, by the traceback."""
    codes = [code_of(getsignal(number)) for number in valid_signals()]
    traceback = exception.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def code_of(handler: object) -> object:
    """Return the code that a signal handler runs: of a function, a method, a partial or an object with ``__call__``.

    For what is none of these, such as ``SIG_DFL``, it is a text, which is no frame's code.
    """
    while isinstance(handler, partial):
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    # In the classes, since an enumeration, as what stands for no handler is, would give that of its metaclass.
    called = (vars(one).get("__call__") for one in type(handler).__mro__)
    return getattr(function, "__code__", None) or getattr(next(filter(None, called), None), "__code__", "none")


GREENLETS = ("greenlet", "gevent", "eventlet")
"""The packages whose exceptions arrive from outside, such as ``gevent.Timeout`` in an application that sets one."""

EXACT = 2**53
"""Up to here every whole number is a floating point number too."""


def as_size(amount: object) -> float | None:
    """Return ``amount`` as a finite number that isn't negative, or ``None`` where it is none."""
    try:
        number = float(amount) if hasattr(amount, "__float__") else math.nan
    except Exception as problem:  # whatever the object's own conversion raises
        if from_signal_handler(problem):
            raise
        return None
    if not 0 <= number < math.inf:
        return None
    if type(amount) is int and amount <= EXACT:
        return amount  # whole numbers stay as they are given
    return number
