"""Running code with an interruption at every step of it, as a signal handler or a ``__del__`` might interrupt it."""

import gc
import sys
import traceback
from collections.abc import Callable
from threading import Thread
from types import CodeType, FrameType
from typing import Any


def interrupted_everywhere(run: Callable[[], object], interrupt: Callable[[], object]) -> int:
    """Call ``run``, and ``interrupt`` once before each instruction of Python that it reaches; return how many.

    What ``interrupt`` itself runs isn't interrupted.
    """
    seen: set[tuple[CodeType, int]] = set()

    def local(frame: FrameType, event: str, argument: Any) -> Any:  # pragma: no cover - it is the tracer
        place = (frame.f_code, frame.f_lasti)
        if event == "line":
            frame.f_trace_opcodes = True  # CPython 3.13 heeds it in frames alone that are being traced already
        elif event == "opcode" and place not in seen:
            seen.add(place)
            interrupt()
        return local

    def begun(frame: FrameType, event: str, argument: Any) -> Any:  # pragma: no cover - it is the tracer
        frame.f_trace_opcodes = True
        return local

    # What others left to the collector would be interrupted too. CPython 3.11 runs it also in the midst of setting a
    # context variable, and a finalizer that sets one as well then uses memory that was freed.
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 looks once, when a tracer is set, whether any frame has it
    sys.settrace(begun)
    try:
        run()
    finally:
        sys.settrace(before)
        (gc.enable if collects else gc.disable)()
    return len(seen)


def within(seconds: float, run: Callable[[], object], what: str) -> None:
    """Call ``run`` in a thread of its own; raise :class:`AssertionError` with its stack where it takes too long.

    A thread that is stuck stays so, as no thread can be stopped from outside. What ``run`` raises is raised here.
    """
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as problem:
            raised.append(problem)

    thread = Thread(target=guarded, daemon=True, name=f"contract: {what}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        raise AssertionError(f"{what} takes longer than {seconds} seconds; is it a deadlock? It stands here:\n{stack}")
    if raised:
        raise raised[0]
