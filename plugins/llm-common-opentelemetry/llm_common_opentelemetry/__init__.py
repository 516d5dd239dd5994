"""The backend ``opentelemetry`` of llm_common, and exemplars for every backend that shows them.

Chosen by name, ``LLM_COMMON_BACKENDS=opentelemetry``, it records on the ``MeterProvider`` that the application
configured. For another: ``configure(backends=[OpenTelemetryBackend(provider)])``. Named as a plugin,
``LLM_COMMON_PLUGINS=opentelemetry``, it gives exemplars to the others and records nothing itself.
"""

from llm_common import hookimpl
from llm_common.contract import ExemplarSource
from llm_common.settings import Settings
from llm_common_opentelemetry.backend import OpenTelemetryBackend
from llm_common_opentelemetry.spans import active_trace

__all__ = ["OpenTelemetryBackend", "active_trace", "llm_common_create_backend", "llm_common_exemplar_source"]


@hookimpl
def llm_common_create_backend(name: str, settings: Settings) -> OpenTelemetryBackend | None:
    """Create the backend ``opentelemetry`` on the application's provider."""
    return OpenTelemetryBackend() if name == "opentelemetry" else None


@hookimpl
def llm_common_exemplar_source(settings: Settings) -> ExemplarSource:
    """Let exemplars carry the trace and span that are active, where they are sampled."""
    return active_trace
