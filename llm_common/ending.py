"""Locks at the end of the interpreter, where daemon threads stand still, whatever they hold."""

from contextlib import AbstractContextManager, nullcontext
from sys import is_finalizing


def held(lock: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """Return ``lock``, or nothing where the interpreter ends: the one thread that still goes on needs none.

    A daemon thread that stands still may have it, and would never release it.
    """
    return nullcontext() if is_finalizing() else lock
