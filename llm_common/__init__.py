"""A metrics facade for LLM applications, Telegram bots and web services.

Application code tracks its critical sections through :func:`action_tracking` and :func:`action_tracking_decorator`;
which backends receive the documented ``genapp_`` metrics is a matter of configuration. Nothing here reads the
environment or loads a backend at import.
"""

from typing import TYPE_CHECKING, Any

from llm_common.decorator import action_tracking_decorator
from llm_common.dispatch import configure, shutdown
from llm_common.hookspecs import hookimpl
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking

if TYPE_CHECKING:
    from llm_common.current import current_action
    from llm_common.http_exchange import http_tracking

__all__ = [
    "ActionTracker",
    "action_tracking",
    "action_tracking_decorator",
    "configure",
    "current_action",
    "hookimpl",
    "http_tracking",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    if name == "current_action":  # imported only on demand, because from then on every tracker pays for it
        from llm_common.current import current_action

        return current_action
    if name == "http_tracking":  # likewise: what never speaks HTTP needn't load it
        from llm_common.http_exchange import http_tracking

        return http_tracking
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
