"""A real Prometheus server scrapes the running demo."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pytest

from servers import demo, eventually, program, running, scraping

pytestmark = pytest.mark.e2e


@pytest.fixture
def prometheus() -> str:
    return program("prometheus")


TRACED = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from llm_common import action_tracking, configure
from llm_common.prometheus import start_metrics_server

configure(app="shop_bot", backends="prometheus", plugins="opentelemetry", strict=True)
with TracerProvider().get_tracer("shop").start_as_current_span("update") as span, action_tracking("menu_handler"):
    trace_id = format(span.get_span_context().trace_id, "032x")
server = start_metrics_server()
print(f"127.0.0.1:{server.port} {trace_id}", flush=True)
sys.stdin.read()
"""


@contextmanager
def traced_application() -> Iterator[tuple[str, str]]:
    """Run an application that tracked one action in a trace; yield where to scrape it, and the trace."""
    command = [sys.executable, "-c", TRACED]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        target, trace = cast("IO[str]", process.stdout).readline().split()
        yield target, trace
        cast("IO[str]", process.stdin).close()


def histogram(metric: str, labels: set[str]) -> list[tuple[str, set[str]]]:
    return [(f"{metric}_bucket", {*labels, "le"}), (f"{metric}_sum", labels), (f"{metric}_count", labels)]


def test_a_real_prometheus_returns_all_six_metrics_of_the_demo(prometheus: str, tmp_path: Path) -> None:
    with demo() as target, scraping(prometheus, target, tmp_path) as (server, ask):

        def query(expression: str) -> list[dict[str, Any]]:
            return list(ask("query", query=expression)["result"])

        scraped = {"__name__", "instance", "job"}
        action = {"name", "env", "app"}
        http = {"method", "status", "resource", "app_type", "env", "app"}
        for metric, labels in (
            ("genapp_action_count_total", {*action, "status"}),
            *histogram("genapp_action_duration_sec", action),
            ("genapp_action_size_total", action),
            ("genapp_http_requests_total", http),
            *histogram("genapp_http_request_duration_sec", http),
            *histogram("genapp_http_request_size_bytes", {*http, "direction"}),
        ):
            result = eventually(lambda metric=metric: query(metric), server)  # type: ignore[misc]
            for series in result:
                assert set(series["metric"]) - scraped == labels, metric
                assert (series["metric"]["env"], series["metric"]["app"]) == ("preprod", "demo_bot")
        by_suffix = eventually(
            lambda: len(found := query('sum by (name) (genapp_action_count_total{status="ok"})')) >= 4 and found,
            server,
        )
        names = [series["metric"]["name"] for series in by_suffix]
        for suffix in ("_handler", "_task", "_llm_call", "_agent"):
            assert any(name.endswith(suffix) for name in names), names
        for selector in (
            'app_type="app_api",resource="orders/{number}",status="404"',
            'app_type="app_api",resource="answers/stream",status="499"',
            'app_type="llm",resource="v1/chat/completions",status="200"',
        ):
            eventually(lambda selector=selector: query(f"genapp_http_requests_total{{{selector}}}"), server)  # type: ignore[misc]
        assert query('{__name__=~"genapp_.*_created"}') == []
        (up,) = query("up")
        assert up["value"][1] == "1"


def test_a_real_prometheus_keeps_the_exemplars_of_a_traced_action(prometheus: str, tmp_path: Path) -> None:
    with (
        traced_application() as (target, trace),
        scraping(prometheus, target, tmp_path, "--enable-feature=exemplar-storage") as (server, ask),
    ):

        def exemplars(metric: str) -> Any:
            now = time.time()
            return ask("query_exemplars", query=metric, start=now - 600, end=now + 600)

        for metric in ("genapp_action_count_total", "genapp_action_duration_sec_bucket"):
            (series,) = eventually(lambda metric=metric: exemplars(metric), server)  # type: ignore[misc]
            (exemplar,) = series["exemplars"]
            assert exemplar["labels"]["trace_id"] == trace
            assert series["seriesLabels"]["name"] == "menu_handler"
