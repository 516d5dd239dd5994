"""Shared set-up: each test starts unconfigured, in an empty directory, without the environment's own settings."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from prometheus_client import CollectorRegistry

from llm_common import configure
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.dispatch import unconfigured
from llm_common.prometheus import render_metrics
from llm_common.tracker import NO_ACTION, get_current, nearest_running
from scraping import Scrape, parsed

pytest.register_assert_rewrite("comparing", "httpx_transports")
pytest_plugins = ["pytester"]

settings.register_profile("project", deadline=None)  # speed is measured in benchmarks/, never in a test
settings.register_profile(  # which `make mutation` runs again and again; any example that fails will do
    "mutation", deadline=None, max_examples=20, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def clean_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in list(os.environ):
        if variable.startswith(("LLM_COMMON_", "OTEL_", "PROMETHEUS_")):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    with unconfigured():
        yield
    assert nearest_running(get_current()) is NO_ACTION, "the test left an action open"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Scrape:
    """Configure the Prometheus backend on a fresh registry, and return what reads its scrape back."""
    configure(app="shop_bot", env="dev", backends=[PrometheusBackend(registry)], strict=True)
    return lambda: parsed(render_metrics(registry=registry)[0].decode())
