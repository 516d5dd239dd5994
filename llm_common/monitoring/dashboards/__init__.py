"""The dashboards *HTTP requests* and *Actions* for Grafana 11.6, made with its foundation SDK.

What is on them is in :mod:`~llm_common.monitoring.dashboards.http` and
:mod:`~llm_common.monitoring.dashboards.actions`; how a panel looks is in
:mod:`~llm_common.monitoring.dashboards.panels`, how they are arranged and stay where they are in
:mod:`~llm_common.monitoring.dashboards.layout`.
"""

from llm_common.monitoring.dashboards.actions import actions_dashboard
from llm_common.monitoring.dashboards.http import http_dashboard
from llm_common.monitoring.options import Options


def dashboard_files(options: Options) -> dict[str, str]:
    """Return the dashboards as JSON, by the name of the file; the same options give the same text."""
    return {"http.json": http_dashboard(options), "actions.json": actions_dashboard(options)}
