"""What is the backend's own: its place in a registry, aioprometheus' endpoints, and what its collectors refuse."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import aiohttp
import pytest
from aioprometheus.asgi.starlette import metrics
from aioprometheus.collectors import REGISTRY, Counter, Histogram, Registry
from aioprometheus.renderer import render
from aioprometheus.service import Service
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from llm_common import action_tracking, configure
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import METRICS
from llm_common.contract import HttpSeries
from llm_common.dispatch import bind_http
from llm_common.errors import ConfigurationError
from llm_common.prometheus import render_metrics
from llm_common_aioprometheus import AioprometheusBackend
from llm_common_aioprometheus import backend as backend_module

LABELS = {"name": "menu_handler", "env": "dev", "app": "shop_bot"}
SERVED = HttpSeries("GET", "200", "items/{item_id}", "app_api")
COUNTED = 'genapp_action_count_total{app="shop_bot",env="dev",name="menu_handler",status="ok"}'


@pytest.fixture
def registry() -> Registry:
    found = Registry()
    configure(app="shop_bot", env="dev", backends=[AioprometheusBackend(found)], strict=True)
    return found


@pytest.fixture
def default_registry() -> Iterator[Registry]:
    yield REGISTRY
    REGISTRY.clear()  # type: ignore[no-untyped-call]


def act(times: int = 1) -> None:
    for _ in range(times):
        with action_tracking("menu_handler") as tracker:
            tracker.size(3)


def shown(registry: Registry) -> str:
    return render(registry, [])[0].decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_labels_and_bounds_are_written_as_the_prometheus_backend_writes_them(registry: Registry) -> None:
    other = CollectorRegistry()
    configure(app="shop_bot", env="dev", backends=[AioprometheusBackend(registry), PrometheusBackend(other)])
    act(2)
    bind_http(SERVED).finished(0.02, 10, 10**9)
    assert samples(shown(registry)) == samples(generate_latest(other).decode())
    assert 'le="1e+09"' in shown(registry)


def test_its_own_service_shows_the_series_among_others(registry: Registry) -> None:
    Counter("orders", "Orders.", registry=registry).inc({"kind": "gift"})
    act(3)

    async def scrape() -> tuple[str, str]:
        service = Service(registry)
        await service.start(addr="127.0.0.1", port=0)
        try:
            async with aiohttp.ClientSession() as client, client.get(service.metrics_url) as response:
                return await response.text(), response.headers["Content-Type"]
        finally:
            await service.stop()

    text, content_type = asyncio.run(scrape())
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert f"{COUNTED} 3.0\n" in text
    assert 'orders{kind="gift"} 1' in text


def test_its_asgi_endpoint_shows_them(registry: Registry) -> None:
    act()
    web = Starlette()
    web.add_route("/metrics", metrics)
    web.state.registry = registry
    with TestClient(web) as client:
        text = client.get("/metrics").text
    assert f"{COUNTED} 1.0\n" in text


def test_the_endpoints_of_llm_common_show_them_beside_what_prometheus_client_has(registry: Registry) -> None:
    act()
    text = render_metrics()[0].decode()
    assert f"{COUNTED} 1.0\n" in text
    assert "python_info" in text
    assert COUNTED in render_metrics("application/openmetrics-text; version=1.0.0")[0].decode()
    assert render_metrics(names=["genapp_action_count_total"])[0].decode().count("\n") == 3


def test_an_endpoint_shows_each_series_once_after_the_backend_was_switched(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = CollectorRegistry()
    monkeypatch.setattr("llm_common.exposition.REGISTRY", default)
    configure(app="shop_bot", env="dev", backends=[PrometheusBackend(default)])
    act(5)
    configure(app="shop_bot", env="dev", backends=[MemoryBackend(), AioprometheusBackend(registry)])
    act(2)
    text = render_metrics()[0].decode()
    assert text.count("# TYPE genapp_action_count_total") == 1
    assert f"{COUNTED} 2.0\n" in text
    configure(app="shop_bot", env="dev", backends=[AioprometheusBackend(registry), PrometheusBackend(default)])
    assert f"{COUNTED} 5.0\n" in render_metrics()[0].decode()


def test_a_backend_that_cannot_be_shown_leaves_the_rest_of_the_scrape(
    registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = AioprometheusBackend(registry)
    configure(app="shop_bot", backends=[backend])
    monkeypatch.setattr("llm_common.exposition._logged", set())  # another test may have had the same fault
    monkeypatch.setattr(backend, "collect", lambda since: [])
    assert b"python_info" in render_metrics()[0]
    assert "a backend can't show its metrics; the scrape has the global registry's alone" in caplog.text


def test_a_child_process_binds_though_the_parent_held_the_lock(registry: Registry) -> None:
    backend = AioprometheusBackend(Registry())
    held, release = Event(), Event()

    def hold() -> None:
        with backend_module._lock:
            held.set()
            release.wait(30)

    thread = Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child, which ends without reporting
        signal.alarm(60)
        configure(backends=[backend])
        os._exit(7)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    gc.collect()


def test_it_is_chosen_by_name_and_then_uses_the_default_registry(default_registry: Registry) -> None:
    configure(app="shop_bot", env="dev", backends="aioprometheus")
    act()
    configure(app="shop_bot", env="dev", backends="aioprometheus")
    act()
    assert "genapp_action_count_total" in shown(default_registry)
    assert cast("Counter", default_registry.get("genapp_action_count_total")).get({**LABELS, "status": "ok"}) == 2


def test_a_registry_that_was_cleared_begins_anew(registry: Registry) -> None:
    act(2)
    registry.clear()  # type: ignore[no-untyped-call]
    configure(app="shop_bot", env="dev", backends=[AioprometheusBackend(registry)])
    act()
    counter = cast("Counter", registry.get("genapp_action_count_total"))
    assert counter.get_all() == [({"name": "menu_handler", "env": "dev", "app": "shop_bot", "status": "ok"}, 1)]


def test_nothing_is_shown_of_a_registry_that_was_cleared(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_common.exposition.REGISTRY", CollectorRegistry())
    act()
    registry.clear()  # type: ignore[no-untyped-call]
    assert b"genapp_" not in render_metrics()[0]


def test_values_can_be_read_by_their_labels(registry: Registry) -> None:
    act(2)
    counter = cast("Counter", registry.get("genapp_action_size_total"))
    assert counter.get(LABELS) == 6
    histogram = cast("Histogram", registry.get("genapp_action_duration_sec"))
    value = histogram.get(LABELS)
    assert (value["count"], value[float("inf")]) == (2, 2)
    assert list(value)[-3:] == [float("inf"), "count", "sum"]
    for labels in ({**LABELS, "name": "other_handler"}, {}):
        with pytest.raises(KeyError):
            counter.get(labels)


def test_values_cannot_be_changed_from_outside(registry: Registry) -> None:
    counter: Any = registry.get("genapp_action_count_total")
    histogram: Any = registry.get("genapp_action_duration_sec")
    changes: list[Callable[[], object]] = [
        lambda: counter.inc(LABELS),
        lambda: counter.add(LABELS, 1),
        lambda: counter.set(LABELS, 1),
        lambda: histogram.observe(LABELS, 1),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="is counted by llm_common and can't be changed from outside; track an"):
            change()


def test_bounds_can_change_until_something_was_recorded(registry: Registry) -> None:
    backend = AioprometheusBackend(registry)
    configure(app="shop_bot", env="dev", backends=[backend], action_duration_buckets=[1, 2])
    act()
    assert 'le="2.0"' in shown(registry)
    assert 'le="0.1"' not in shown(registry)
    with pytest.raises(ConfigurationError, match=r"action_duration_buckets can't change from \(1.0, 2.0\) to"):
        configure(app="shop_bot", env="dev", backends=[backend])
    act()
    assert cast("Counter", registry.get("genapp_action_count_total")).get({**LABELS, "status": "ok"}) == 2


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_clash_of_names_is_an_error_with_the_fix(metric: Any) -> None:
    registry = Registry()
    Counter(metric.name, "Another one.", registry=registry)
    with pytest.raises(ConfigurationError, match=f"already has {metric.name}. Remove the older definitions, or give"):
        configure(backends=[AioprometheusBackend(registry)])
    assert len(registry.get_all()) == 1


def test_eight_threads_lose_nothing_where_the_librarys_own_counter_may(registry: Registry) -> None:
    threads = [Thread(target=act, args=(10_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        shown(registry)
    for thread in threads:
        thread.join()
    assert cast("Counter", registry.get("genapp_action_count_total")).get({**LABELS, "status": "ok"}) == 80_000
    assert cast("Counter", registry.get("genapp_action_size_total")).get(LABELS) == 240_000


@pytest.mark.e2e
def test_nothing_of_it_is_imported_unless_it_is_named(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from llm_common.prometheus import action_tracking\n"
        "with action_tracking('menu_handler'): pass\n"
        "print([name for name in sys.modules if 'aioprometheus' in name])\n"
    )
    outputs = []
    for backends in ("prometheus", "aioprometheus"):
        environ = {**os.environ, "LLM_COMMON_BACKENDS": backends}
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        outputs.append(done.stdout.strip())
    assert outputs[0] == "[]"
    assert "llm_common_aioprometheus" in outputs[1]
