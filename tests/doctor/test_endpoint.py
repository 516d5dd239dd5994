"""What the doctor says of pages and processes: real servers, with real faults."""

import asyncio
import os
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import servers
from doctoring import HEALTHY, page_server, right, wrong
from llm_common.doctor import endpoint, processes
from llm_common.doctor.run import examine
from llm_common.exposition import metrics_asgi_app
from llm_common.prometheus import action_tracking
from scraping import Scrape
from serving import uvicorn_server
from wsgi_serving import gunicorn_server

WORKERS = """
import glob, os, time
from llm_common.prometheus import action_tracking, configure, metrics_wsgi_app
configure(app="shop_bot", env="prod", strict=True)
for _ in range(10 + os.getpid() % 1000):
    with action_tracking("menu_handler"):
        pass
metrics = metrics_wsgi_app()
open(f"{os.getpid()}.ready", "w").close()
def application(environ, start_response):
    while len(glob.glob("*.ready")) < 2:  # until the other worker can answer as well
        time.sleep(0.01)
    time.sleep(0.01)  # so that another worker takes the next request
    return metrics(environ, start_response)
"""
OWN_REGISTRY = WORKERS.replace(
    'configure(app="shop_bot", env="prod", strict=True)',
    "from prometheus_client import CollectorRegistry\n"
    "from llm_common.backends.prometheus import PrometheusBackend\n"
    "registry = CollectorRegistry()\n"
    'configure(app="shop_bot", env="prod", strict=True, backends=[PrometheusBackend(registry)])',
).replace("metrics_wsgi_app()", "metrics_wsgi_app(registry)")


def gunicorns() -> list[int]:
    """Return the masters that this process started, and their workers."""
    masters = [one for one in processes.children_of(os.getpid()) if "served:application" in processes.command_of(one)]
    return [*masters, *(worker for master in masters for worker in processes.children_of(master))]


@pytest.mark.once
@pytest.mark.e2e
def test_several_workers_without_a_directory_show_from_outside_and_in_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COMMON_APP", "shop_bot")
    monkeypatch.setenv("LLM_COMMON_ENV", "prod")
    with gunicorn_server(WORKERS, tmp_path, workers=2) as (host, port):
        url = f"http://{host}:{port}/metrics"
        found = wrong(examine([url]))
        assert list(found) == ["DR301"]
        assert "answers came from 2 processes, by when they started" in found["DR301"]
        master, *workers = gunicorns()
        assert len(workers) == 2
        for number in (master, *workers):
            message = "there are 2 workers, and PROMETHEUS_MULTIPROC_DIR isn't set"
            assert wrong(examine([str(number)])) == {"DR301": message}


@pytest.mark.once
@pytest.mark.e2e
def test_several_workers_show_in_counters_alone(tmp_path: Path) -> None:
    with gunicorn_server(OWN_REGISTRY, tmp_path, workers=2) as (host, port):
        found = wrong(examine([f"http://{host}:{port}/metrics"]))
    assert list(found) == ["DR301"]
    assert "answers came from several processes: genapp_action_" in found["DR301"]
    assert "went down between two" in found["DR301"]


@pytest.mark.once
@pytest.mark.e2e
def test_several_workers_with_a_directory_are_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("LLM_COMMON_APP", "shop_bot")
    monkeypatch.setenv("LLM_COMMON_ENV", "prod")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(shared))
    with gunicorn_server(WORKERS, tmp_path, workers=2) as (host, port):
        found = examine([f"http://{host}:{port}/metrics", *map(str, gunicorns())])
    assert wrong(found) == {}
    assert {"DR301", "DR303", "DR304", "DR306", "DR406"} <= right(found)


@pytest.mark.once
@pytest.mark.e2e
def test_the_demo_has_no_finding() -> None:
    with servers.demo() as target:
        url = f"http://{target}/metrics"
        for _ in range(600):
            if "genapp_action_count_total{" in endpoint.scrape(url, 10, {}).text:  # else MC513 is right
                break
            time.sleep(0.1)
        found = examine([url])
    assert wrong(found) == {}
    assert right(found) >= {"DR103", "DR104", "DR301", "DR401", "DR402", "DR404", "DR405", "DR406"}


def test_a_page_that_is_asked_for_once_too_often_counts_up() -> None:
    numbers = count(1)
    with page_server(lambda: HEALTHY.replace(" 1.0", f" {next(numbers)}.0")) as url:
        found = examine([url])
    assert wrong(found) == {}
    assert next(numbers) == 1 + endpoint.ALONE + endpoint.ROUNDS * endpoint.AT_ONCE


def test_a_server_that_refuses_some_of_many_requests_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "AT_ONCE", 2)
    numbers = count()

    def page() -> str:
        if next(numbers) >= endpoint.ALONE:
            raise ConnectionAbortedError
        return HEALTHY

    with page_server(page) as url:
        found = examine([url])
    assert wrong(found) == {}
    assert "DR301" in right(found)


def application(pause: Callable[[], Any]) -> Any:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        found = scope["path"] == "/metrics"
        if found and (waiting := pause()) is not None:
            await waiting
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
        await send({"type": "http.response.body", "body": HEALTHY.encode() if found else b""})

    return app


def test_a_page_that_blocks_the_loop_holds_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BUDGET", 0)
    with uvicorn_server(application(lambda: time.sleep(1)), lifespan="off") as (host, port):
        found = wrong(examine([f"http://{host}:{port}/metrics"]))
    assert list(found) == ["DR402", "DR403"]
    assert found["DR403"].endswith(" seconds longer while the page was made")


def test_a_page_made_in_a_thread_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BUDGET", 0)
    app = application(lambda: asyncio.to_thread(time.sleep, 1))
    with uvicorn_server(app, lifespan="off") as (host, port):
        found = examine([f"http://{host}:{port}/metrics"])
    assert list(wrong(found)) == ["DR402"]
    assert "DR403" in right(found)


def test_a_page_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BUDGET", 0)
    monkeypatch.setattr(endpoint, "SLOW", 0.3)

    def page() -> str:
        time.sleep(0.3)
        return HEALTHY

    with page_server(page) as url:
        message = wrong(examine([url]))["DR402"]
    assert re.fullmatch(rf"the page takes \d\.\d seconds, for {len(HEALTHY)} bytes in 2 lines", message)


@pytest.mark.parametrize(("apart", "words"), [(3600, "ahead of"), (-3600, "behind")])
def test_clocks_that_differ(apart: int, words: str) -> None:
    with page_server(date=lambda: time.time() + apart) as url:
        found = wrong(examine([url]))
    assert list(found) == ["DR404"]
    assert f" seconds {words} that of this machine" in found["DR404"]


def test_a_server_that_does_not_tell_the_time() -> None:
    with page_server(date=lambda: None) as url:
        assert wrong(examine([url])) == {}


def test_a_process_that_starts_in_the_future() -> None:
    started = f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {time.time() + 1000}\n"
    with page_server(HEALTHY + started) as url:
        found = wrong(examine([url]))
    assert list(found) == ["DR405"]
    with page_server(HEALTHY + started.rpartition(" ")[0] + " NaN\n") as url:
        assert wrong(examine([url])) == {}


def test_a_start_that_is_no_number_is_the_matter_of_the_contract() -> None:
    with page_server(HEALTHY + "process_start_time_seconds soon\n") as url:
        found = wrong(examine([url]))
    assert list(found) == ["DR406"]
    assert found["DR406"].startswith("it isn't a page that Prometheus could read: ")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (HEALTHY + HEALTHY.splitlines()[1] + "\n", "MC506: the series genapp_action_count_total with the labels"),
        (HEALTHY.replace("status", "state"), "MC503: genapp_action_count_total lacks 'status'"),
        (HEALTHY.replace('"ok"', '"success"'), "MC504: status of genapp_action_count_total is 'success'"),
        (HEALTHY + "genapp_action_count_total{,} 1..e+\n", "it isn't a page that Prometheus could read"),
    ],
)
def test_a_page_that_breaks_the_contract(page: str, message: str) -> None:
    with page_server(page) as url:
        found = [one for one in examine([url]) if one.code == "DR406"]
    assert found[0].message.startswith(message)
    assert found[0].severity == "error"


def test_what_the_check_only_warns_of_is_a_warning_here() -> None:
    with page_server("# TYPE shop gauge\nshop 1\n") as url:
        found = [one for one in examine([url]) if one.severity != "ok"]
    assert [(one.code, one.severity, one.message) for one in found] == [
        ("DR406", "warning", "MC513: the page has no metric of the contract")
    ]


def test_app_and_env_of_a_page() -> None:
    with page_server(HEALTHY.replace("shop_bot", "uvicorn").replace("prod", "production")) as url:
        assert wrong(examine([url])) == {
            "DR103": "app is 'uvicorn', which is what runs the application",
            "DR104": "env is 'production'; did you mean 'prod'?",
        }


def test_a_page_that_cannot_be_had() -> None:
    with page_server() as url:
        (found,) = examine([url.replace("/metrics", "/metrisc")])
    assert (found.code, found.severity, found.message) == ("DR401", "error", "the server answers 404 Not Found")
    (gone,) = examine([url])
    assert gone.message == "the page can't be read: Connection refused"


def test_a_protected_page_is_read_with_its_token() -> None:
    with page_server(token="s3cret") as url:
        (refused,) = examine([url])
        assert (refused.code, refused.fix) == ("DR401", "give its bearer token with --token-file")
        assert wrong(examine([url], token="s3cret")) == {}


def test_our_own_endpoint_is_healthy(scrape: Scrape, registry: CollectorRegistry) -> None:
    with action_tracking("menu_handler"):
        pass
    with uvicorn_server(metrics_asgi_app(registry), lifespan="off") as (host, port):
        assert wrong(examine([f"http://{host}:{port}/metrics"])) == {}


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_a_time_that_no_clock_can_show_is_no_time(date: str) -> None:
    assert endpoint.Scrape("", "", date, 0.1, 1234.5).told == 1234.5
