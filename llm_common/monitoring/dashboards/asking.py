"""The expressions of one row: those of :mod:`~llm_common.monitoring.promql` for the series that the row is about."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_common.catalog import Metric
from llm_common.monitoring import promql
from llm_common.monitoring.dashboards.panels import Query
from llm_common.monitoring.promql import Wanted

RANGE = "$__range"
"""The time that is selected on the dashboard; Grafana fills it in."""
WEEK = "1w"
QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


class Asking(NamedTuple):
    """What is asked about the series with certain labels."""

    recorded: bool
    """Whether for what the recording rules made, or for the raw series."""
    labels: Mapping[str, Wanted]

    def rate(self, metric: Metric, part: str = "", **more: Any) -> str:
        """Return how much the series grow per second."""
        return promql.rate(metric, part, **self._with(more))

    def increase(self, metric: Metric, **more: Any) -> str:
        """Return by how much the series grew in the time that is selected."""
        return promql.increase(metric, RANGE, **self._with(more))

    def share(self, metric: Metric, offset: str = "", by: tuple[str, ...] = (), **labels: Wanted) -> str:
        """Return the share of a counter that has ``labels``."""
        asked: dict[str, Any] = {"by": by, "offset": offset}
        return promql.share(self.rate(metric, **asked, **dict[str, Any](labels)), self.rate(metric, **asked))

    def share_in_range(self, metric: Metric, by: tuple[str, ...], **labels: Wanted) -> str:
        """Return the share of a counter that has ``labels``, in the time that is selected."""
        return promql.share(self.increase(metric, by=by, **labels), self.increase(metric, by=by))

    def quantile(self, share: float, metric: Metric, **more: Any) -> str:
        """Return a quantile of a histogram."""
        return promql.quantile(share, metric, **self._with(more))

    def quantiles(self, metric: Metric) -> list[Query]:
        """Return the usual quantiles of a histogram, over all of it."""
        return [Query(self.quantile(share, metric), name) for share, name in QUANTILES]

    def within(self, metric: Metric, bounds: tuple[float, ...]) -> list[Query]:
        """Return the shares of a histogram of durations that were not above each of ``bounds``, in seconds."""
        return [Query(promql.within(bound, metric, **self._with({})), f"within {bound:g} s") for bound in bounds]

    def mean(self, metric: Metric, **more: Any) -> str:
        """Return the mean of a histogram."""
        return promql.mean(metric, **self._with(more))

    def in_progress(self, by: tuple[str, ...]) -> str:
        """Return how many actions are under way; that is never recorded."""
        return promql.in_progress(by=by, **self.labels)

    def only(self, **labels: Wanted) -> "Asking":
        """Return what asks about fewer series: ``labels`` replace those of the same name."""
        return self._replace(labels={**self.labels, **labels})

    def _with(self, more: Mapping[str, Any]) -> dict[str, Any]:
        return {"recorded": self.recorded, **self.labels, **more}
