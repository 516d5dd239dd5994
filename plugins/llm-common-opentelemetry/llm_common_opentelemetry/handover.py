"""Handing measurements over to OpenTelemetry, never in the thread that measured.

The SDK aggregates under locks that are not re-entrant, and holds them while a reader collects. Whoever recorded in a
signal handler, or in a ``__del__`` that interrupts a collection, would wait for ever. So measurements are appended to a
queue, which is atomic. They are handed over when a reader collects, just before it does, which is when it calls the
observable instruments; and by a thread of its own as soon as there are many, or one belongs to a sampled span, since
an exemplar's time is that of the handing over.
"""

import logging
import os
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Lock

from opentelemetry.context import Context, get_current, set_value
from opentelemetry.metrics import CallbackOptions, Observation

from llm_common_opentelemetry.spans import sampled_span

logger = logging.getLogger("llm_common")

MANY = 1_000
"""How many measurements wait at most for a reader. More would cost memory, fewer would cost time."""

PATIENCE = 5.0
"""How long, in seconds, a reader waits for measurements that are just being handed over."""

NO_CONTEXT = set_value("llm_common", value=True, context=Context())
"""Stands for an empty context, in place of which OpenTelemetry takes that of the thread which hands over."""

Attributes = dict[str, str]
Record = Callable[[float, Attributes, Context], None]
Measurement = tuple[Record, float, Attributes]
"""What records, a method of an instrument; the amount; the attributes."""


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
        self._pending.extend([(one, context or NO_CONTEXT) for one in measurements])
        if (context and sampled_span(context)) or len(self._pending) >= MANY:
            self._wake()

    def deliver(self, timeout: float = PATIENCE) -> bool:
        """Hand over what is pending now; return false where another thread is still at it after ``timeout`` seconds."""
        if not self._delivering.acquire(timeout=timeout):
            return False
        try:
            self._woken = False  # whoever adds from now on may have come too late for this delivery
            for _ in range(len(self._pending)):
                (record, amount, attributes), context = self._pending.popleft()
                try:
                    record(amount, attributes, context)
                except Exception as fault:
                    self._tell(fault)
        finally:
            self._delivering.release()
        return True

    def collected(self, options: CallbackOptions) -> Iterable[Observation]:
        """Hand over what is pending, as the callback of an observable instrument that observes nothing itself."""
        self.deliver()
        return ()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            # Not threading.Thread: its start takes a lock, which a signal handler may have interrupted.
            with suppress(RuntimeError):  # while the interpreter exits: the last collection takes what is pending
                start_new_thread(self._deliver_all, ())

    def _deliver_all(self) -> None:
        self.deliver(-1)  # pragma: no cover - such a thread can't be measured

    def _tell(self, fault: Exception) -> None:
        level = logging.DEBUG if self._told else logging.WARNING
        self._told = True
        with suppress(Exception):  # a broken log handler must not lose the other measurements
            logger.log(level, "opentelemetry: an instrument raised; the measurement is lost", exc_info=fault)


handover = Handover()

if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=handover.begin_anew)
