"""Exemplars of the Prometheus backend: where they come from, which is kept, and how OpenMetrics shows them."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar, Timestamp

from llm_common import action_tracking, configure
from llm_common.backends import exemplars
from llm_common.backends.action_series import ActionSeries
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import HttpSeries
from llm_common.dispatch import bind_http, unconfigured
from llm_common.errors import PluginError
from llm_common.hookspecs import hookimpl
from llm_common.prometheus import render_metrics
from llm_common.settings import Settings
from llm_common.testing.strategies import hostile_names

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SERVED = HttpSeries("GET", "200", "items/{item_id}", "app_api")


class Tracing:
    """A plugin that gives whatever labels a test puts into it."""

    labels: Any = None
    asked = 0

    @hookimpl
    def llm_common_exemplar_source(self) -> Callable[[], Mapping[str, str] | None]:
        return self.current

    def current(self) -> Any:
        self.asked += 1
        if isinstance(self.labels, BaseException):
            raise self.labels
        return self.labels


@pytest.fixture
def tracing(registry: CollectorRegistry) -> Tracing:
    plugin = Tracing()
    configure(app="shop_bot", env="dev", backends=[PrometheusBackend(registry)], plugins=[plugin])
    return plugin


def text(registry: CollectorRegistry, accept: str = OPENMETRICS) -> str:
    return render_metrics(accept, registry=registry)[0].decode()


def shown(registry: CollectorRegistry) -> dict[tuple[str, str], Exemplar]:
    """Return the exemplars on a scrape, by the sample's name and its status or bound."""
    return {
        (sample.name, sample.labels.get("le") or sample.labels["status"]): sample.exemplar
        for family in text_string_to_metric_families(text(registry))  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }


def test_an_action_in_a_trace_shows_the_trace_on_its_count_and_its_bucket(
    tracing: Tracing, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exemplars, "time", lambda: 1_700_000_000.5)
    monkeypatch.setattr("llm_common.tracker.perf_counter", iter([0.0, 0.75]).__next__)
    tracing.labels = {"trace_id": "abc", "span_id": "def"}
    with suppress(LookupError), action_tracking("menu_handler"):
        raise LookupError
    assert shown(registry) == {
        ("genapp_action_count_total", "error"): Exemplar(tracing.labels, 1.0, Timestamp(1_700_000_000, 5e8)),
        ("genapp_action_duration_sec_bucket", "1.0"): Exemplar(tracing.labels, 0.75, Timestamp(1_700_000_000, 5e8)),
    }


def test_an_exchange_in_a_trace_shows_it_too(tracing: Tracing, registry: CollectorRegistry) -> None:
    tracing.labels = {"trace_id": "abc"}
    bind_http(SERVED).finished(0.75, 10, 20)
    found = shown(registry)
    assert found["genapp_http_requests_total", "200"].value == 1
    assert found["genapp_http_request_duration_sec_bucket", "1.0"].value == 0.75
    assert len(found) == 2
    assert {one.labels["trace_id"] for one in found.values()} == {"abc"}


def test_the_latest_exemplar_of_each_bucket_is_kept_and_others_stay(
    tracing: Tracing, registry: CollectorRegistry
) -> None:
    for number, seconds in enumerate([0.75, 0.8, 7.0]):
        tracing.labels = {"trace_id": str(number)}
        bind_http(SERVED).finished(seconds, 0, 0)
    tracing.labels = None
    bind_http(SERVED).finished(0.9, 0, 0)
    found = shown(registry)
    assert found["genapp_http_request_duration_sec_bucket", "1.0"].labels == {"trace_id": "1"}
    assert found["genapp_http_request_duration_sec_bucket", "10.0"].labels == {"trace_id": "2"}
    assert found["genapp_http_requests_total", "200"].labels == {"trace_id": "2"}


def test_the_prometheus_text_format_has_no_exemplars(tracing: Tracing, registry: CollectorRegistry) -> None:
    tracing.labels = {"trace_id": "abc"}
    with action_tracking("menu_handler"):
        pass
    assert "abc" in text(registry)
    assert "abc" not in text(registry, "")


@given(hostile_names(), hostile_names().map(lambda name: name[:100]), st.integers(0, 10**7))
def test_the_text_is_that_of_prometheus_client_byte_for_byte(name: str, trace: str, times: int) -> None:
    registry, plugin = CollectorRegistry(), Tracing()
    plugin.labels = {"trace_id": trace}
    with unconfigured():
        configure(app=f"a{name}", backends=[PrometheusBackend(registry)], plugins=[plugin])
        with action_tracking(name):
            pass
        bind_http(SERVED._replace(resource=name)).finished(0.75, times, times)
        assert text(registry) == generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]


def test_without_a_source_a_backend_gets_the_recorder_that_it_always_had(registry: CollectorRegistry) -> None:
    bound: list[tuple[object, object]] = []

    class Watch:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, exemplar: object) -> Iterator[None]:
            recorder = yield
            bound.append((exemplar, type(recorder)))
            return recorder

    configure(app="shop_bot", backends=[PrometheusBackend(registry)], plugins=[Watch()])
    with action_tracking("menu_handler"):
        pass
    assert bound == [(None, ActionSeries)]


@contextmanager
def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    found: list[str] = []
    with caplog.at_level(logging.WARNING, logger="llm_common"):
        yield found
    found += [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LookupError("no tracer"), "LookupError: no tracer"),
        ({"trace-id": "1"}, "'trace-id': '1' is no label of an exemplar"),
        (7, "7 are no labels of an exemplar"),
    ],
)
def test_a_source_that_fails_costs_the_exemplar_alone(
    labels: object, words: str, tracing: Tracing, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    tracing.labels = labels
    with warnings_of(caplog) as found:
        for _ in range(2):
            with action_tracking("menu_handler"):
                pass
    (warning,) = found
    assert words in warning
    assert warning.startswith("Tracing: llm_common_exemplar_source() raised")
    assert warning.endswith("; the application is not affected, the measurement counts without an exemplar")
    assert 'status="ok"} 2.0\n' in text(registry)
    assert not shown(registry)


def test_in_strict_mode_a_source_that_fails_raises_once_the_action_is_counted(registry: CollectorRegistry) -> None:
    plugin = Tracing()
    plugin.labels = LookupError("no tracer")
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], plugins=[plugin], strict=True)
    with pytest.raises(LookupError, match="no tracer"), action_tracking("menu_handler"):
        pass
    assert 'name="menu_handler",status="ok"} 1.0\n' in text(registry)


def test_a_source_that_is_no_function_or_cannot_be_made_is_an_error() -> None:
    class Wrong:
        @hookimpl
        def llm_common_exemplar_source(self) -> Any:
            return "trace_id"

    class Broken:
        @hookimpl
        def llm_common_exemplar_source(self) -> Any:
            raise LookupError("no tracer")

    with pytest.raises(PluginError) as caught:
        configure(backends=[MemoryBackend()], plugins=[Wrong(), Wrong()])
    assert str(caught.value) == (
        "llm_common_exemplar_source of the plugin 'Wrong' or the plugin 'Wrong' returned 'trace_id', "
        "which can't be called; return a function without arguments, or None"
    )
    with pytest.raises(PluginError, match=r"source of the plugin 'Broken' raised LookupError: no"):
        configure(backends=[MemoryBackend()], plugins=[Broken()])


def test_a_source_is_made_from_the_settings(registry: CollectorRegistry) -> None:
    class Settled:
        @hookimpl
        def llm_common_exemplar_source(self, settings: Settings) -> Callable[[], Mapping[str, str]]:
            return lambda: {"app": settings.app}

    configure(app="shop_bot", backends=[PrometheusBackend(registry)], plugins=[Settled()], strict=True)
    with action_tracking("menu_handler"):
        pass
    assert shown(registry)["genapp_action_count_total", "ok"].labels == {"app": "shop_bot"}


def test_each_series_has_counts_and_exemplars_of_its_own(tracing: Tracing, registry: CollectorRegistry) -> None:
    orders = HttpSeries("GET", "200", "orders", "app_api")
    for number in (1, 2):
        tracing.labels = {"trace_id": "first"}
        with action_tracking("first_handler"):
            pass
        bind_http(SERVED).finished(0.5, 0, 0)
        tracing.labels = {"trace_id": "second"}
        with action_tracking("second_handler"):
            pass
        bind_http(orders).finished(0.5, 0, 0)
        lines = [line for line in text(registry).splitlines() if "_total{" in line and "action_size" not in line]
        assert sorted(line.partition(" # ")[2].split()[0] for line in lines) == [
            '{trace_id="first"}',
            '{trace_id="first"}',
            '{trace_id="second"}',
            '{trace_id="second"}',
        ]
        assert {line.split()[1] for line in lines} == {f"{number}.0"}
        for line in lines:
            assert ("first" in line.partition(" # ")[2]) == ("first_handler" in line or "item_id" in line)


def test_two_backends_on_one_registry_still_count_once(registry: CollectorRegistry) -> None:
    plugin = Tracing()
    backends = [PrometheusBackend(registry), PrometheusBackend(registry)]
    configure(app="shop_bot", backends=backends, plugins=[plugin])
    with action_tracking("menu_handler"):
        pass
    bind_http(SERVED).finished(0.5, 0, 0)
    assert 'name="menu_handler",status="ok"} 1.0\n' in text(registry)
    assert 'status="200"} 1.0\n' in text(registry)
    assert plugin.asked == 2


def test_a_configuration_without_a_source_goes_on_with_the_counts_and_asks_nobody(
    tracing: Tracing, registry: CollectorRegistry
) -> None:
    tracing.labels = {"trace_id": "abc"}
    with action_tracking("menu_handler"):
        pass
    before = tracing.asked
    configure(app="shop_bot", env="dev", backends=[PrometheusBackend(registry)])
    with action_tracking("menu_handler"):
        pass
    assert tracing.asked == before
    configure(app="shop_bot", env="dev", backends=[PrometheusBackend(registry)], plugins=[tracing])
    tracing.labels = {"trace_id": "later"}
    with action_tracking("menu_handler"):
        pass
    assert shown(registry)["genapp_action_count_total", "ok"].labels == {"trace_id": "later"}
    assert 'name="menu_handler",status="ok"} 3.0 # ' in text(registry)
