from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics

from llm_common.backends.action_series import ActionSeries, Totals
from llm_common.backends.http_series import HttpTotals
from llm_common.backends.store import BatchedStore
from llm_common.catalog import METRICS, Buckets, Metric
from llm_common.contract import HttpSeries, Status
from llm_common.exposition import render_metrics
from llm_common.testing.strategies import hostile_names

FORMATS = ["", "application/openmetrics-text; version=1.0.0"]


def library(registry: CollectorRegistry, accept: str) -> bytes:
    """Return what prometheus_client writes by itself."""
    if accept:
        return bytes(openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


@pytest.fixture(autouse=True)
def no_created_twins() -> Iterator[None]:
    """The comparisons are with the library's own metrics, of which only the documented lines count."""
    from prometheus_client import disable_created_metrics, enable_created_metrics

    disable_created_metrics()  # type: ignore[no-untyped-call]
    yield
    enable_created_metrics()  # type: ignore[no-untyped-call]


Ended = list[tuple[Status, float]]


class Twins:
    """The same values in a store of ours and in the library's own metrics."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.ours, self.theirs = CollectorRegistry(), CollectorRegistry()
        self.store = BatchedStore(Buckets(bounds, bounds, bounds))
        self.ours.register(self.store)
        every: dict[Metric, Any] = {
            metric: (
                Histogram(metric.name, metric.help, metric.labels, registry=self.theirs, buckets=bounds)
                if metric.buckets
                else Counter(metric.family, metric.help, metric.labels, registry=self.theirs)
            )
            for metric in METRICS
        }
        self.requests, self.http_duration, self.http_size, self.count, self.duration, self.size = every.values()

    def add_http(self, series: HttpSeries, exchanges: list[tuple[float, int, int]]) -> None:
        batch = self.store.http(series, "dev", "app")
        method, status, resource, app_type = series
        for seconds, request_bytes, response_bytes in exchanges:
            batch.finished(seconds, request_bytes, response_bytes)
            self.requests.labels(method, status, resource, app_type, "dev", "app").inc()
            self.http_duration.labels(method, status, resource, app_type, "dev", "app").observe(seconds)
            for direction, size in (("in", request_bytes), ("out", response_bytes)):
                self.http_size.labels(resource, status, method, direction, app_type, "dev", "app").observe(size)

    def add(self, name: str, ended: Ended, sizes: list[float]) -> None:
        series = self.store.action(name, "dev", "app")
        for status, seconds in ended:
            series.finished(status, seconds)
        for status in Status:
            if number := sum(one is status for one, _ in ended):
                self.count.labels(name, status.value, "dev", "app").inc(number)
        for _, seconds in ended:
            self.duration.labels(name, "dev", "app").observe(seconds)
        for amount in sizes:
            series.sized(amount)
            self.size.labels(name, "dev", "app").inc(amount)


# Sums of these are exact in floating point, so that both ways of adding give the same digits.
exact = st.integers(0, 2**20).map(lambda number: number / 1024) | st.integers(0, 2**40).map(float)


labels = hostile_names().map(lambda name: name.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.builds(HttpSeries, st.sampled_from(["GET", "_OTHER"]), labels, labels, labels),
        st.lists(st.tuples(exact, st.integers(0, 2**40), st.integers(0, 2**20)), min_size=1, max_size=80),
        max_size=4,
    ),
    st.sampled_from(FORMATS),
)
def test_http_too(http: dict[HttpSeries, list[tuple[float, int, int]]], accept: str) -> None:
    twins = Twins((0.5, 1.0, 2.5, 1e6))
    for series, exchanges in http.items():
        twins.add_http(series, exchanges)
    assert render_metrics(accept, registry=twins.ours)[0] == library(twins.theirs, accept)
    assert library(twins.ours, accept) == library(twins.theirs, accept)


@settings(max_examples=100)
@given(
    st.dictionaries(
        labels,
        st.tuples(st.lists(st.tuples(st.sampled_from(Status), exact), max_size=20), st.lists(exact, max_size=3)),
        max_size=5,
    ),
    st.sampled_from(FORMATS),
)
def test_the_text_is_that_of_prometheus_client_byte_for_byte(
    actions: dict[str, tuple[Ended, list[float]]], accept: str
) -> None:
    twins = Twins((0.5, 1.0, 2.5, 1e6))
    for name, (ended, sizes) in actions.items():
        twins.add(name, sorted(ended, key=lambda one: list(Status).index(one[0])), sizes)
    assert render_metrics(accept, registry=twins.ours)[0] == library(twins.theirs, accept)
    assert library(twins.ours, accept) == library(twins.theirs, accept)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("number", [1, 999_998, 999_999, 1_000_000, 123_456_789, 10**15, 10**17])
def test_great_numbers_are_written_as_prometheus_client_writes_them(number: int, accept: str) -> None:
    store, registry = BatchedStore(Buckets((0.5,), (0.5,), (0.5,))), CollectorRegistry()
    registry.register(store)
    series = store.action("a%d.0%s_task", "dev", "app")
    series.totals = Totals(number, 1, 0, number * 1.5, (number, 1), number * 3.0)
    assert render_metrics(accept, registry=registry)[0] == library(registry, accept)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("number", [1, 999_999, 1_000_000, 10**15])
def test_great_numbers_of_exchanges_too(number: int, accept: str) -> None:
    store, registry = BatchedStore(Buckets((0.5,), (0.5,), (0.5,))), CollectorRegistry()
    registry.register(store)
    batch = store.http(HttpSeries("GET", "200", "a%d.0%s", "web"), "dev", "app")
    batch.totals = HttpTotals(number, number * 1.5, (number, 1), number * 2, (0, number), number * 3, (1, number))
    assert render_metrics(accept, registry=registry)[0] == library(registry, accept)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("odd", ["<>", "<<>>%s%d.0", '"<>\\'])
def test_fixed_labels_may_look_like_the_places_of_a_template(odd: str, accept: str) -> None:
    store, registry = BatchedStore(Buckets((0.5,), (0.5,), (0.5,))), CollectorRegistry()
    registry.register(store)
    for app_type, env, app in ((odd, "dev", "app"), ("web", odd, "app"), ("web", "dev", odd)):
        store.action("menu_<>_handler", env, app).finished(Status.OK, 0.1)
        store.http(HttpSeries("GET", "200", "menu_<>", app_type), env, app).finished(0.1, 1, 1)
    assert render_metrics(accept, registry=registry)[0] == library(registry, accept)


def others(registry: CollectorRegistry, *names: str) -> None:
    for name in names:
        Counter(f"{name}_c", 'help "quoted" \\ and\nbroken', ["l"], registry=registry).labels('v"\n').inc(2)
        Gauge(f"{name}_g", "a gauge", registry=registry).set(float("nan"))
        Info(f"{name}_i", "an info", registry=registry).info({"version": "1"})


@pytest.mark.parametrize("accept", [*FORMATS, "text/plain; version=1.0.0; escaping=allow-utf-8"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_whatever_else_the_registry_has_is_shown_in_its_place(position: int, accept: str) -> None:
    registry = CollectorRegistry(target_info={"service": "x"})
    steps: list[Callable[[], Any]] = [lambda: others(registry, "a"), lambda: others(registry, "b")]
    store = BatchedStore(Buckets((0.5,), (0.5,), (0.5,)))
    steps.insert(position, lambda: registry.register(store))
    for step in steps:
        step()
    store.action("menu_handler", "dev", "app").finished(Status.OK, 0.1)
    assert render_metrics(accept, registry=registry)[0] == library(registry, accept if "open" in accept else "")


def test_a_format_without_templates_is_left_to_prometheus_client() -> None:
    registry = CollectorRegistry()
    store = BatchedStore(Buckets((0.5,), (0.5,), (0.5,)))
    registry.register(store)
    store.action("menu_handler", "dev", "app").finished(Status.OK, 0.1)
    body, content_type = render_metrics("application/openmetrics-text; version=2.0.0", registry=registry)
    assert b'genapp_action_count_total{app="app",env="dev",name="menu_handler",status="ok"} 1.0\n' in body
    assert "version=2.0.0" in content_type


def test_an_empty_registry_is_still_a_valid_scrape() -> None:
    assert render_metrics("", registry=CollectorRegistry())[0] == b""
    assert render_metrics(FORMATS[1], registry=CollectorRegistry())[0] == b"# EOF\n"


def test_the_registry_of_prometheus_client_itself_can_restrict_the_families() -> None:
    registry = CollectorRegistry()
    store = BatchedStore(Buckets((0.5,), (0.5,), (0.5,)))
    registry.register(store)
    store.action("menu_handler", "dev", "app").finished(Status.OK, 0.1)
    restricted = registry.restricted_registry(["genapp_action_duration_sec_count"])
    text = generate_latest(restricted).decode()
    assert 'genapp_action_duration_sec_count{app="app",env="dev",name="menu_handler"} 1.0' in text
    assert "_bucket" not in text
    assert isinstance(next(iter(store.collect())), Family)


def test_actions_tracked_while_the_text_is_written_come_with_the_next_scrape() -> None:
    store = BatchedStore(Buckets((0.5,), (0.5,), (0.5,)))
    series: ActionSeries = store.action("menu_handler", "dev", "app")
    series.finished(Status.OK, 0.1)
    families = (family for family in store.collect() if family.name.startswith("genapp_action"))
    first = next(families)
    series.finished(Status.OK, 0.1)
    assert [sample.value for sample in first.samples] == [1]
    assert [sample.value for sample in next(families).samples][-2] == 1
