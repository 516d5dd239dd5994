"""Handing measurements over to OpenTelemetry, never in the thread that measured.

The SDK works under locks that are not re-entrant, and holds them while a reader collects. Whoever recorded in a signal
handler, or in a ``__del__`` that interrupts a collection, would wait for ever. So measurements are appended to a queue,
which is atomic, and a thread that measures never calls OpenTelemetry. They are handed over when a reader collects, just
before it does: it calls the observable instruments then, and one is there for that alone. Besides, a thread of its own
hands over as soon as there are many, or one belongs to a sampled span, since an exemplar's time is that of the handing
over.
"""

import logging
import os
from _thread import LockType, start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import TIMEOUT_MAX, Lock
from time import sleep

from opentelemetry.context import Context, get_current, set_value
from opentelemetry.metrics import CallbackOptions, Observation

from llm_common_opentelemetry.spans import sampled_span

logger = logging.getLogger("llm_common")

MANY = 1_000
"""How many measurements may wait before a thread hands them over. More would cost memory, fewer would cost time."""

MOST = 20 * MANY
"""From how many on whoever measures is slowed down: OpenTelemetry takes longer for one than the queue does."""

BREATH = 0.0005
"""For how long, in seconds, whoever measures then lets others run."""

PATIENCE = 5.0
"""How long, in seconds, a reader waits for measurements that are just being handed over."""

NO_CONTEXT = set_value("llm_common", value=True, context=Context())
"""Stands for an empty context, in place of which OpenTelemetry takes that of the thread which hands over."""

Attributes = dict[str, str]
Record = Callable[[float, Attributes, Context], None]
Measurement = tuple[Callable[[], Record], float, Attributes]
"""What returns the method of an instrument that records, making the instrument on first use; the amount; the labels."""


class Handover:
    """The queue between the threads that measure and OpenTelemetry."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Measurement, Context]] = deque()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what is pending and who was about to hand it over: in a child process, the parent does that."""
        self._pending.clear()
        self._delivering = Lock()
        self._woken = False
        self._told = False

    def add(self, *measurements: Measurement) -> None:
        """Take measurements that belong together, in the context of this thread."""
        context = get_current()
        pending = self._pending
        pending.extend([(one, context or NO_CONTEXT) for one in measurements])
        if (context and sampled_span(context)) or len(pending) >= MANY:
            self._wake()
            if len(pending) >= MOST:
                sleep(BREATH)

    def deliver(self, timeout: float = -1) -> bool:
        """Hand over what is pending now; return false where another thread is still at it after ``timeout`` seconds.

        It waits without end where there is no ``timeout``.
        """
        if not self._delivering.acquire(timeout=timeout):
            return False
        try:
            self._woken = False  # whoever adds from now on may have come too late for this delivery
            for _ in range(len(self._pending)):
                (record, amount, attributes), context = self._pending.popleft()
                try:
                    record()(amount, attributes, context)
                except Exception as fault:
                    self._tell(fault)
        finally:
            self._delivering.release()
        return True

    def on_collection(self, options: CallbackOptions) -> Iterable[Observation]:
        """Hand over what is pending, as the callback of an observable instrument that observes nothing itself."""
        self.deliver(PATIENCE)
        return ()

    def finish(self, timeout: float) -> bool:
        """Hand over what is pending, in another thread; return whether that was done within ``timeout`` seconds.

        Raises :class:`RuntimeError` where no thread can be started, as while the interpreter exits.
        """
        if not self._pending:
            return True
        done = start(self.deliver)
        return done.acquire(timeout=min(max(timeout, 0.0), TIMEOUT_MAX))

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            try:
                start(self.deliver)
            except RuntimeError:
                self._woken = False

    def _tell(self, fault: Exception) -> None:
        level = logging.DEBUG if self._told else logging.WARNING
        self._told = True
        with suppress(Exception):  # a broken log handler must not lose the other measurements
            logger.log(level, "opentelemetry: an instrument raised; the measurement is lost", exc_info=fault)


def start(call: Callable[[], object]) -> LockType:
    """Make ``call`` in a thread of its own, and return a lock that is released when it has ended.

    It is no :class:`threading.Thread`, whose start takes a lock that a signal handler may have interrupted. Raises
    :class:`RuntimeError` where no thread can be started.
    """
    done = Lock()
    done.acquire()

    def guarded() -> None:  # pragma: no cover - such a thread can't be measured
        try:
            call()
        finally:
            done.release()

    start_new_thread(guarded, ())
    return done


handover = Handover()

if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=handover.begin_anew)
