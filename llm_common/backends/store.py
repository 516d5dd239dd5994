"""All series of one registry in a single process, and the collector that shows them on its scrapes.

For backends of others too: what counts in a process and is read from time to time can leave the counting to it.
"""

import os
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar
from weakref import WeakSet

from prometheus_client.metrics_core import Metric as Family

from llm_common.backends.action_series import ActionSeries, ActionTemplates, Snapshot, TracedActionRecorder
from llm_common.backends.action_series import families as action_families
from llm_common.backends.action_series import snapshot as action_snapshot
from llm_common.backends.batching import Batch, Folder, warn_if_forked
from llm_common.backends.exemplars import Exemplars
from llm_common.backends.extra_series import ExtraSeries
from llm_common.backends.extra_series import families as extra_families
from llm_common.backends.http_series import HttpBatch, HttpSnapshot, HttpTemplates, TracedHttpRecorder
from llm_common.backends.http_series import families as http_families
from llm_common.backends.http_series import snapshot as http_snapshot
from llm_common.backends.rendering import empty_families
from llm_common.catalog import Buckets, Metric
from llm_common.contract import ExemplarSource, HttpSeries

Traced = TypeVar("Traced", TracedActionRecorder, TracedHttpRecorder)


class BatchedStore:
    """All series of one registry. It outlives configurations: what was counted under an earlier one stays.

    ``buckets`` are the bounds of its histograms. It is exact from threads, signal handlers and ``__del__``, and in a
    child process after a fork, which begins at zero.
    """

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self._folder = Folder()
        self._actions: dict[tuple[str, str, str], ActionSeries] = {}
        self._action_templates: dict[tuple[str, str], ActionTemplates] = {}
        self._http: dict[tuple[HttpSeries, str, str], HttpBatch] = {}
        self._http_templates: dict[tuple[str, str, str], HttpTemplates] = {}
        self._extras: dict[tuple[Metric, tuple[str, ...]], ExtraSeries] = {}
        self._exemplars: dict[Hashable, Exemplars] = {}
        self._traced_actions: dict[Hashable, TracedActionRecorder] = {}
        self._traced_http: dict[Hashable, TracedHttpRecorder] = {}
        _every.add(self)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever bound, so that the bounds can still change."""
        return not (self._actions or self._http or self._extras)

    def action(self, name: str, env: str, app: str) -> ActionSeries:
        """Return the recorder of an action, always the same for the same labels."""
        warn_if_forked()
        key = (name, env, app)
        found = self._actions.get(key)
        if found is None:
            bounds = self.buckets.action_duration
            templates = self._action_templates.get((env, app))
            if templates is None:
                templates = self._action_templates.setdefault((env, app), ActionTemplates(env, app, bounds))
            found = self._actions.setdefault(key, ActionSeries(self._folder, key, bounds, templates))
        return found

    def traced_action(self, name: str, env: str, app: str, source: ExemplarSource) -> TracedActionRecorder:
        """Return the recorder of an action that keeps exemplars, the same for the same labels and source."""
        series = self.action(name, env, app)
        series.exemplars = self._exemplars.setdefault((name, env, app), Exemplars())
        return _kept(self._traced_actions, (name, env, app), TracedActionRecorder(series, series.exemplars, source))

    def http(self, series: HttpSeries, env: str, app: str) -> HttpBatch:
        """Return the recorder of an HTTP series, always the same for the same labels."""
        warn_if_forked()
        key = (series, env, app)
        found = self._http.get(key)
        if found is None:
            shared = (series.app_type, env, app)
            templates = self._http_templates.get(shared)
            if templates is None:
                templates = self._http_templates.setdefault(shared, HttpTemplates(*shared, self.buckets))
            batch = HttpBatch(self._folder, series, env, app, self.buckets, templates)
            found = self._http.setdefault(key, batch)
        return found

    def metric(self, metric: Metric, values: tuple[str, ...]) -> ExtraSeries:
        """Return the recorder of one series of a metric beside the contract, always the same for the same values."""
        warn_if_forked()
        found = self._extras.get((metric, values))
        if found is None:
            made = ExtraSeries(self._folder, metric, values, self.buckets.of(metric))
            found = self._extras.setdefault((metric, values), made)
        return found

    def traced_http(self, series: HttpSeries, env: str, app: str, source: ExemplarSource) -> TracedHttpRecorder:
        """Return the recorder of an HTTP series that keeps exemplars, the same for the same labels and source."""
        batch = self.http(series, env, app)
        batch.exemplars = self._exemplars.setdefault((series, env, app), Exemplars())
        return _kept(self._traced_http, (series, env, app), TracedHttpRecorder(batch, batch.exemplars, source))

    def describe(self) -> Iterator[Family]:
        """Yield the families without samples, by which the registry recognizes a clash of names."""
        return empty_families()

    def collect(self) -> Iterator[Family]:
        """Yield the families with what was counted up to now; called by the registry at each scrape."""
        http, actions = self.http_totals(), self.action_totals()
        yield from http_families(http)
        yield from action_families(actions)
        extras = list(self._extras.values())
        self._fold(extras)
        yield from extra_families(extras)

    def action_totals(self) -> Snapshot:
        """Return every action that has counted anything, with its totals up to now."""
        every = list(self._actions.values())
        self._fold(every)
        return action_snapshot(every)

    def http_totals(self) -> HttpSnapshot:
        """Return every HTTP series that has counted anything, with its totals up to now."""
        every = list(self._http.values())
        self._fold(every)
        return http_snapshot(every)

    def after_fork(self) -> None:
        """Begin at zero, in a child process: what was counted before the fork is its parent's."""
        batches: list[Batch] = [*self._actions.values(), *self._http.values(), *self._extras.values()]
        for batch in batches:
            batch.forget()

    def _fold(self, batches: Sequence[Batch]) -> None:
        for batch in batches:  # one by one, so that the lock is never held for long
            self._folder.fold(batch)


_every: WeakSet[BatchedStore] = WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_every):
        store.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _kept(recorders: dict[Hashable, Traced], key: Hashable, made: Traced) -> Traced:
    """Return the recorder that is kept under ``key``, which is ``made`` unless there is one with the same source."""
    found = recorders.setdefault(key, made)
    if found.source is not made.source:  # of an earlier configuration
        found = recorders[key] = made
    return found
