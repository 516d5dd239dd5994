"""The backend ``aioprometheus`` of llm_common: the documented series in an aioprometheus registry.

Chosen by name, ``LLM_COMMON_BACKENDS=aioprometheus``, it uses aioprometheus' default registry, which its own endpoints
serve. For another: ``configure(backends=[AioprometheusBackend(registry)])``.
"""

from llm_common import hookimpl
from llm_common.settings import Settings
from llm_common_aioprometheus.backend import AioprometheusBackend

__all__ = ["AioprometheusBackend", "llm_common_create_backend"]


@hookimpl
def llm_common_create_backend(name: str, settings: Settings) -> AioprometheusBackend | None:
    """Create the backend ``aioprometheus`` on the default registry."""
    return AioprometheusBackend() if name == "aioprometheus" else None
