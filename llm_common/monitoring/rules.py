"""The rules of Prometheus: what is recorded for dashboards and alerts, and the alerts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_common.monitoring.alerts import Alert, alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import EVERY_RECORDING, Recording

INTERVAL = "1m"
"""How often rules are evaluated."""


def recording_groups(recordings: Sequence[Recording] = EVERY_RECORDING) -> Sequence[Mapping[str, Any]]:
    """Return the groups of recording rules. Groups run side by side, the rules of one in their order."""
    groups: dict[str, list[dict[str, str]]] = {}
    for one in recordings:
        groups.setdefault(one.metric.name, []).append({"record": one.name, "expr": one.expression})
    return [_group(name, rules) for name, rules in groups.items()]


def alert_groups(options: Options) -> Sequence[Mapping[str, Any]]:
    """Return the group of alerts."""
    return [_group("alerts", [alert.rule(options.runbooks) for alert in alerts(options)])]


def groups_for(alert: Alert) -> Sequence[Mapping[str, Any]]:
    """Return what one alert needs alone, so that it can be tested in a moment: its rule and what it asks for."""
    asked, needed = alert.expression, list[Recording]()
    for one in reversed(EVERY_RECORDING):
        if one.name in asked:
            needed.insert(0, one)
            asked += one.expression
    return [*recording_groups(needed), _group("alerts", [alert.rule()])]


def recording_rules_file() -> str:
    """Return the recording rules as a file for Prometheus."""
    return _as_yaml(recording_groups())


def alert_rules_file(options: Options) -> str:
    """Return the alerts as a file for Prometheus. They need the recording rules too."""
    return _as_yaml(alert_groups(options))


def _group(name: str, rules: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"name": f"llm_common:{name}", "interval": INTERVAL, "rules": rules}


def _as_yaml(groups: Sequence[Mapping[str, Any]]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as such."""

    def text(dumper: yaml.SafeDumper, one: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", one, style="|" if "\n" in one else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump({"groups": groups}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000))
