"""The rules of Prometheus: what is recorded for dashboards and alerts, and the alerts."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_common.monitoring.alerts import alerts
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import EVERY_RECORDING

INTERVAL = "1m"
"""How often rules are evaluated."""


def recording_groups() -> Sequence[Mapping[str, Any]]:
    """Return the groups of recording rules. Groups run side by side, the rules of one in their order."""
    groups: dict[str, list[dict[str, str]]] = {}
    for one in EVERY_RECORDING:
        groups.setdefault(one.metric.name, []).append({"record": one.name, "expr": one.expression})
    return [{"name": f"llm_common:{name}", "interval": INTERVAL, "rules": rules} for name, rules in groups.items()]


def alert_groups(options: Options) -> Sequence[Mapping[str, Any]]:
    """Return the group of alerts."""
    rules = [alert.rule(options.runbooks) for alert in alerts(options)]
    return [{"name": "llm_common:alerts", "interval": INTERVAL, "rules": rules}]


def recording_rules_file() -> str:
    """Return the recording rules as a file for Prometheus."""
    return _as_yaml(recording_groups())


def alert_rules_file(options: Options) -> str:
    """Return the alerts as a file for Prometheus. They need the recording rules too."""
    return _as_yaml(alert_groups(options))


def _as_yaml(groups: Sequence[Mapping[str, Any]]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as such."""

    def text(dumper: yaml.SafeDumper, one: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", one, style="|" if "\n" in one else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump({"groups": groups}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000))
