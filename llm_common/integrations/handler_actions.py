"""What integrations with bots share: the name of a handler's action, and what ends one well. No framework is in it."""

from functools import lru_cache, partial
from types import TracebackType

from llm_common.action_names import end_of, name_of, with_suffix
from llm_common.decorator import tracked_name
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking

UNHANDLED_UPDATE = "unhandled_update_handler"
"""The action of an update that no handler took."""


@lru_cache(maxsize=4096)
def _suffixed(called: str, suffix: str) -> str:
    return with_suffix(end_of(called), suffix)


def is_decorated(callback: object) -> bool:
    """Return whether calls of ``callback`` are tracked by hand, by a decorator on it or on its class's ``__call__``."""
    while isinstance(callback, partial):
        if tracked_name(callback) is not None:
            return True
        callback = callback.func
    own_call = getattr(type(callback), "__call__", None)  # noqa: B004 - not whether there is one, but which
    return tracked_name(callback) is not None or tracked_name(own_call) is not None


def action_name(callback: object, suffix: str) -> str | None:
    """Return the name of the action that a call of ``callback`` is; ``None`` where it is decorated by hand already."""
    try:
        return None if is_decorated(callback) else _suffixed(name_of(callback), suffix)
    except Exception:  # an object whose attributes can't be read, which is no reason not to call it
        return _suffixed("", suffix)


class HandlerAction:
    """A call of a handler as an action, which exceptions of the kinds ``control_flow`` end as a return would.

    They pass through untouched, as all exceptions do.
    """

    __slots__ = ("_control_flow", "_tracker")

    def __init__(self, name: str, control_flow: type[Exception] | tuple[type[Exception], ...]) -> None:
        self._tracker = action_tracking(name)
        self._control_flow = control_flow

    def __enter__(self) -> ActionTracker:
        return self._tracker.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exception, self._control_flow):
            self._tracker.__exit__(None, None, None)
        else:
            self._tracker.__exit__(exc_type, exception, traceback)
