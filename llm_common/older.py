"""Names that applications written for the older package import, beside those that are the same in this one."""

from llm_common.dispatch import configure, state
from llm_common.settings import Settings


def build_prometheus_metrics(project_name: str, env: str) -> Settings:
    """Set up metrics: the older name of ``configure(app=project_name, env=env)``.

    Raises what :func:`~llm_common.configure` raises.
    """
    return configure(app=project_name, env=env)


def is_build_metrics() -> bool:
    """Return whether metrics are set up and recorded somewhere, by ``configure()``, its older name or first use."""
    pipeline = state.active
    return pipeline is not None and pipeline.records
