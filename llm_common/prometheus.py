"""The documented door: ``from llm_common.prometheus import action_tracking, action_tracking_decorator``.

The tracking names are the same objects as in :mod:`llm_common`, whatever the backend. What serves a scrape, what counts
HTTP, and what belongs to a framework is imported on first use, so that importing this module costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_common.decorator import action_tracking_decorator
from llm_common.dispatch import configure, shutdown
from llm_common.tracking import action_tracking

if TYPE_CHECKING:
    from llm_common.current import current_action
    from llm_common.exposition import metrics_asgi_app, metrics_wsgi_app, render_metrics
    from llm_common.http_exchange import http_tracking
    from llm_common.integrations.fastapi import fastapi_endpoint_for_prometheus, fastapi_tracking_middleware
    from llm_common.integrations.flask import flask_endpoint_for_prometheus
    from llm_common.metrics_server import MetricsServer, start_metrics_server
    from llm_common.older import build_prometheus_metrics, is_build_metrics

__all__ = [
    "MetricsServer",
    "action_tracking",
    "action_tracking_decorator",
    "build_prometheus_metrics",
    "configure",
    "current_action",
    "fastapi_endpoint_for_prometheus",
    "fastapi_tracking_middleware",
    "flask_endpoint_for_prometheus",
    "http_tracking",
    "is_build_metrics",
    "metrics_asgi_app",
    "metrics_wsgi_app",
    "render_metrics",
    "shutdown",
    "start_metrics_server",
]

_ELSEWHERE = {
    "MetricsServer": "metrics_server",
    "build_prometheus_metrics": "older",
    "current_action": "current",
    "fastapi_endpoint_for_prometheus": "integrations.fastapi",
    "fastapi_tracking_middleware": "integrations.fastapi",
    "flask_endpoint_for_prometheus": "integrations.flask",
    "http_tracking": "http_exchange",
    "is_build_metrics": "older",
    "start_metrics_server": "metrics_server",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"llm_common.{_ELSEWHERE.get(name, 'exposition')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
