"""Dashboards, rules and alerts, made from the catalogue: what Prometheus, Grafana and Alertmanager are given.

Every expression is built by :mod:`~llm_common.monitoring.promql`, which knows no metric, label or part of a histogram
that the catalogue lacks. The commands are ``llm-common monitoring export`` and ``llm-common check``; what they need is
in the extra ``monitoring``.
"""
