"""Time series as promtool is given them, minute by minute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm_common.backends.rendering import go_number
from llm_common.catalog import Metric
from llm_common.monitoring.alerts import Alert
from llm_common.monitoring.promql import series

Phase = tuple[float, int]
"""How much is counted per minute, and for how many minutes."""

ENDED = "stale"
"""What ends the values of a series that is scraped no more."""


class Ring(NamedTuple):
    """What an alert that fires has."""

    labels: Mapping[str, str]
    summary: str
    description: str


@dataclass(frozen=True)
class Scene:
    """What happens, and which alerts fire at which time."""

    series: Mapping[str, str]
    expected: Mapping[str, list[Ring]]
    step: str = "1m"
    """How often rules are evaluated: more seldom where the scene takes days."""


def counted(
    metric: Metric, *phases: Phase, late: int = -1, end: str = "", instance: str = "one:8000", **labels: Any
) -> dict[str, str]:
    """Return a counter that was there from the beginning with 0, or that is born with 1 so many minutes later."""
    found = values(phases) if late < 0 else f"_x{late} 1" if late else "1"
    return {_selector(metric, "", instance, labels): f"{found} {end}".strip()}


def observed(
    metric: Metric,
    seconds: Mapping[float, float],
    *phases: Phase,
    bounds: tuple[float, ...] = (),
    instance: str = "one:8000",
    **labels: Any,
) -> dict[str, str]:
    """Return a histogram: how often each duration is observed per minute, times a factor for so many minutes."""
    upper = [*(bounds or metric.buckets), float("inf")]
    below = {go_number(bound): sum(times for one, times in seconds.items() if one <= bound) for bound in upper}
    parts = [("bucket", {**labels, "le": le}, times) for le, times in below.items()]
    parts.append(("sum", labels, sum(one * times for one, times in seconds.items())))
    parts.append(("count", labels, sum(seconds.values())))
    return {
        _selector(metric, part, instance, own): values((times * factor, minutes) for factor, minutes in phases)
        for part, own, times in parts
    }


def _selector(metric: Metric, part: str, instance: str, labels: dict[str, str]) -> str:
    return f'{series(metric, part, **labels)[:-1]}, instance="{instance}"}}'


def values(phases: Iterable[Phase]) -> str:
    """Return the values of a counter that starts with 0."""
    total, written = 0.0, ["0"]
    for per_minute, minutes in phases:
        written.append(f"{total + per_minute:.12g}+{per_minute:.12g}x{minutes - 1}")
        total += per_minute * minutes
    return " ".join(written)


def as_test(name: str, alert: Alert, scene: Scene) -> dict[str, Any]:
    """Return a scene as promtool reads it."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": found} for one, found in scene.series.items()],
        "alert_rule_test": [
            {
                "alertname": alert.name,
                "eval_time": at,
                "exp_alerts": [
                    {
                        "exp_labels": {**ring.labels, "severity": alert.severity},
                        "exp_annotations": {
                            "summary": ring.summary,
                            "description": ring.description,
                            "runbook_url": f"https://docs.example.org/metrics/runbooks/#{alert.name.lower()}",
                        },
                    }
                    for ring in rings
                ],
            }
            for at, rings in scene.expected.items()
        ],
    }
