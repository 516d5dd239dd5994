"""The documented door: ``from llm_common.prometheus import action_tracking, action_tracking_decorator``.

The tracking names are the same objects as in :mod:`llm_common`, whatever the backend. What serves a scrape is imported
with prometheus_client on first use, so that importing this module costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

from llm_common.decorator import action_tracking_decorator
from llm_common.dispatch import configure, shutdown
from llm_common.tracking import action_tracking

if TYPE_CHECKING:
    from llm_common.current import current_action
    from llm_common.exposition import (
        MetricsServer,
        metrics_asgi_app,
        metrics_wsgi_app,
        render_metrics,
        start_metrics_server,
    )

__all__ = [
    "MetricsServer",
    "action_tracking",
    "action_tracking_decorator",
    "configure",
    "current_action",
    "metrics_asgi_app",
    "metrics_wsgi_app",
    "render_metrics",
    "shutdown",
    "start_metrics_server",
]


def __getattr__(name: str) -> Any:
    if name == "current_action":
        from llm_common.current import current_action

        return current_action
    if name in __all__:
        from llm_common import exposition

        return getattr(exposition, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
