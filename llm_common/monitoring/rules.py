"""The rules of Prometheus: what is recorded for dashboards and alerts, and the alerts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import EVERY_RECORDING

INTERVAL = "1m"
"""How often rates are recorded."""


def recording_groups() -> Sequence[Mapping[str, Any]]:
    """Return the groups of recording rules. Groups run side by side, the rules of one in their order."""
    groups: dict[str, list[dict[str, str]]] = {}
    for one in EVERY_RECORDING:
        groups.setdefault(one.metric.name, []).append({"record": one.name, "expr": one.expression})
    return [_group(name, rules) for name, rules in groups.items()]


def alert_groups(options: Options) -> Sequence[Mapping[str, Any]]:
    """Return the groups of alerts, by how often they are evaluated."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts(options):
        groups.setdefault(alert.interval, []).append(alert.rule(options.runbooks))
    return [_group(f"alerts:{interval}", rules, interval) for interval, rules in groups.items()]


def needed_for(alert: str, groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the groups with nothing but the rules of one alert and those that record what it asks for.

    What records comes first, which is the order to evaluate them in where time doesn't pass by itself.
    """
    asked = [rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") == alert]
    records = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if "record" in rule}
    for expression in asked:  # grows meanwhile
        asked += [records.pop(name) for name in list(records) if name in expression]
    found = []
    for group in groups:
        rules = [
            rule
            for rule in group["rules"]
            if rule.get("alert") == alert or ("record" in rule and rule["record"] not in records)
        ]
        if rules:
            found.append({**group, "rules": rules})
    return sorted(found, key=lambda group: not any("record" in rule for rule in group["rules"]))


def recording_rules_file() -> str:
    """Return the recording rules as a file for Prometheus."""
    return _file(recording_groups())


def alert_rules_file(options: Options) -> str:
    """Return the alerts as a file for Prometheus. They need the recording rules too."""
    return _file(alert_groups(options))


def _group(name: str, rules: Sequence[Mapping[str, Any]], interval: str = INTERVAL) -> Mapping[str, Any]:
    return {"name": f"llm_common:{name}", "interval": interval, "rules": rules}


def _file(groups: Sequence[Mapping[str, Any]]) -> str:
    from llm_common.monitoring.yaml_text import as_yaml

    return as_yaml({"groups": groups})
