import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest, values
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from llm_common import action_tracking, configure
from llm_common.backends import prometheus
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import ACTION_DURATION_BUCKETS, Buckets
from llm_common.dispatch import override
from llm_common.errors import ConfigurationError
from llm_common.prometheus import render_metrics
from llm_common.testing import RecordedMetrics
from llm_common.testing.strategies import TrackedAction, action_names, actions, hostile_names
from scraping import Scrape, parsed, series

COMMON = {"env": "dev", "app": "shop_bot"}


def test_a_scrape_shows_exactly_the_documented_series(scrape: Scrape) -> None:
    with action_tracking("menu_handler") as tracker:
        tracker.size(3)
    with contextlib.suppress(asyncio.CancelledError), action_tracking("menu_handler"):
        raise asyncio.CancelledError
    values = scrape()
    seconds = values.pop(series("genapp_action_duration_sec_sum", name="menu_handler", **COMMON))
    assert 0 < seconds < 5
    bounds = [*(str(bound) for bound in ACTION_DURATION_BUCKETS), "+Inf"]
    for le in bounds:
        assert values.pop(series("genapp_action_duration_sec_bucket", name="menu_handler", le=le, **COMMON)) <= 2
    assert values == {
        series("genapp_action_count_total", name="menu_handler", status="ok", **COMMON): 1,
        series("genapp_action_count_total", name="menu_handler", status="cancelled", **COMMON): 1,
        series("genapp_action_duration_sec_count", name="menu_handler", **COMMON): 2,
        series("genapp_action_size_total", name="menu_handler", **COMMON): 3,
    }


def test_both_formats_of_prometheus_client_itself_show_the_series(scrape: Scrape, registry: CollectorRegistry) -> None:
    with action_tracking("menu_handler"):
        pass
    expected = scrape()
    assert parsed(generate_latest(registry).decode()) == expected
    openmetrics = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    families = list(text_string_to_metric_families(openmetrics))  # type: ignore[no-untyped-call]
    assert [family.name for family in families] == [
        "genapp_http_requests",
        "genapp_http_request_duration_sec",
        "genapp_http_request_size_bytes",
        "genapp_action_count",
        "genapp_action_duration_sec",
        "genapp_action_size",
    ]
    assert [family.unit for family in families] == [""] * 6
    found = {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}
    assert found == expected


def test_an_action_that_never_ended_shows_no_series(scrape: Scrape) -> None:
    action_tracking("menu_handler")
    assert scrape() == {}


def test_a_size_shows_while_the_action_still_runs(scrape: Scrape) -> None:
    with action_tracking("import_task") as tracker:
        tracker.size(10)
        assert scrape() == {series("genapp_action_size_total", name="import_task", **COMMON): 10}


@contextmanager
def recording_both() -> Iterator[tuple[CollectorRegistry, RecordedMetrics]]:
    registry, memory = CollectorRegistry(), MemoryBackend()
    with override(app="shop_bot", env="dev", backends=(PrometheusBackend(registry), memory), strict=True):
        yield registry, RecordedMetrics(memory)


@settings(max_examples=60)
@given(st.lists(actions(action_names() | hostile_names()), max_size=8))
def test_any_program_gives_the_same_numbers_in_memory_and_on_the_scrape(program: list[TrackedAction]) -> None:
    with recording_both() as (registry, recorded):
        for action in program:
            action.perform()
        values = parsed(render_metrics(registry=registry)[0].decode())
        assert [(event.status, event.size) for event in recorded.events] == [
            (event.status, None if event.size is None else pytest.approx(event.size))
            for action in program
            for event in action.events()
        ]
        for (name, labels), value in values.items():
            assert recorded.metric_value(name, **dict(labels)) == pytest.approx(value, rel=1e-9)
        for metric in ("genapp_action_count_total", "genapp_action_size_total", "genapp_action_duration_sec_count"):
            total = sum(value for (name, _), value in values.items() if name == metric)
            assert recorded.metric_value(metric) == pytest.approx(total, rel=1e-9)


@settings(max_examples=100)
@given(st.sets(hostile_names(), min_size=1, max_size=5))
def test_the_scrape_is_valid_and_whole_whatever_the_names(names: set[str]) -> None:
    with recording_both() as (registry, _):
        for name in names:
            with action_tracking(name):
                pass
        values = parsed(render_metrics(registry=registry)[0].decode())
        counted = {dict(labels)["name"]: value for (name, labels), value in values.items() if name.endswith("_total")}
        assert sum(counted.values()) == len(names)
        for name in names:
            assert counted[name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")] >= 1
        for accept in ("", "application/openmetrics-text"):
            assert b"genapp_action_count" in render_metrics(accept, registry=registry)[0]


def test_a_megabyte_of_text_as_a_name_is_shown_by_its_beginning(scrape: Scrape, registry: CollectorRegistry) -> None:
    with action_tracking('x"\\\n' * 250_000):
        pass
    labels = 'app="shop_bot",env="dev",name="' + 'x\\"\\\\\\n' * 249 + 'x\\"\\\\…",status="ok"'
    lines = render_metrics(registry=registry)[0].decode().splitlines()
    assert f"genapp_action_count_total{{{labels}}} 1.0" in lines
    assert len(lines) == 2 * 6 + 1 + len(ACTION_DURATION_BUCKETS) + 3


def test_app_and_env_may_be_any_text_too(registry: CollectorRegistry) -> None:
    configure(app='shop "bot"\n\ud800', env="prod\\", backends=[PrometheusBackend(registry)])
    with action_tracking("menu_handler"):
        pass
    labels = {"env": "prod\\", "app": 'shop "bot"\n\ufffd', "name": "menu_handler", "status": "ok"}
    assert parsed(render_metrics(registry=registry)[0].decode())[series("genapp_action_count_total", **labels)] == 1


def test_the_default_is_the_global_registry_of_prometheus_client() -> None:
    from prometheus_client import REGISTRY

    assert PrometheusBackend().registry is REGISTRY


def test_metrics_of_the_same_name_from_elsewhere_are_an_error_with_the_fix(registry: CollectorRegistry) -> None:
    Counter("genapp_action_count", "older", ["name"], registry=registry)
    with pytest.raises(
        ConfigurationError, match=r"already has metrics of the same name.*genapp_action_count"
    ) as caught:
        configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    own = "or give the backend a registry of its own: configure(backends=[PrometheusBackend(registry)])"
    assert str(caught.value).endswith(f". Remove the older definitions, {own}")


@pytest.mark.parametrize("directory", [None, "/not/there"])
def test_a_missing_directory_for_several_processes_is_an_error_with_the_fix(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, directory: str | None
) -> None:
    monkeypatch.setattr(prometheus, "_shared", [])
    monkeypatch.setattr(values.ValueClass, "_multiprocess", True)
    if directory:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", directory)
    with pytest.raises(ConfigurationError) as caught:
        configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    assert str(caught.value).endswith(
        f"the environment variable PROMETHEUS_MULTIPROC_DIR is {directory or ''!r}, which is no directory; "
        "create it, empty, before the processes start"
    )


def test_a_registry_that_is_known_is_found_while_another_thread_joins_one(registry: CollectorRegistry) -> None:
    store = prometheus.store_of(registry, Buckets())
    found: list[object] = []
    with prometheus._lock:  # an interrupted thread would wait for itself
        thread = threading.Thread(target=lambda: found.append(prometheus.store_of(registry, Buckets())), daemon=True)
        thread.start()
        thread.join(10)
    assert found == [store]


def test_bucket_bounds_can_be_configured(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    configure(app="shop_bot", backends=[PrometheusBackend(registry)], action_duration_buckets=[0.5, 60])
    with action_tracking("menu_handler"):
        pass
    values = parsed(render_metrics(registry=registry)[0].decode())
    assert {dict(labels)["le"] for (name, labels), _ in values.items() if name.endswith("_bucket")} == {
        "0.5",
        "60.0",
        "+Inf",
    }


def test_bucket_bounds_cannot_change_once_durations_were_recorded(scrape: Scrape, registry: CollectorRegistry) -> None:
    with action_tracking("menu_handler"):
        pass
    with pytest.raises(ConfigurationError, match=r"can't change.*Call configure\(\) before the first action") as caught:
        configure(app="shop_bot", backends=[PrometheusBackend(registry)], action_duration_buckets=[1])
    assert str(caught.value).endswith("first action and the first request, or give the backend a registry of its own")


def test_a_registry_that_is_gone_takes_its_values_along() -> None:
    def track() -> weakref.ref[CollectorRegistry]:
        registry = CollectorRegistry()
        with override(backends=(PrometheusBackend(registry),)), action_tracking("menu_handler"):
            return weakref.ref(registry)

    # In a context of its own, since each context remembers its latest tracker.
    gone = contextvars.copy_context().run(track)
    gc.collect()
    assert gone() is None
