import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llm_common import configure, http_tracking
from llm_common.backends import http_series
from llm_common.backends.memory import MemoryBackend
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.backends.store import BatchedStore
from llm_common.catalog import HTTP_DURATION_BUCKETS, HTTP_SIZE_BUCKETS, Buckets
from llm_common.contract import HttpSeries
from llm_common.dispatch import override, unconfigured
from llm_common.errors import PluginError, TrackingError
from llm_common.http_exchange import Exchange, declared_length
from llm_common.prometheus import render_metrics
from llm_common.testing import HttpExchange, RecordedMetrics, record_metrics
from recording import FaultyBackend, ListBackend
from scraping import Scrape, parsed, series

CALL: dict[str, Any] = {
    "app_type": "llm",
    "resource": "/v1/users/42?key=secret",
    "method": "post",
    "response_size": 20,
    "status_code": 200,
    "duration": 0.5,
    "request_size": 10,
}


def test_an_exchange_is_recorded_with_clean_labels(recorded_metrics: RecordedMetrics) -> None:
    http_tracking(**CALL)
    assert recorded_metrics.exchanges == [HttpExchange("POST", "200", "v1/users/{int}", "llm", 10, 20)]
    assert recorded_metrics.exchanges[0].seconds == 0.5


def test_a_template_is_left_as_it_is(recorded_metrics: RecordedMetrics) -> None:
    http_tracking(**{**CALL, "resource": "/v10/{user_id}/", "clear_resource_path": False, "status_code": "timeout"})
    http_tracking(**{**CALL, "resource": "/v10/x?a=1", "clear_resource_path": False, "status_code": None})
    assert [(one.resource, one.status) for one in recorded_metrics.exchanges] == [
        ("v10/{user_id}", "timeout"),
        ("v10/x", "error"),
    ]


def test_a_template_that_is_too_long_to_be_one_is_left_out(recorded_metrics: RecordedMetrics) -> None:
    http_tracking(**{**CALL, "resource": "x" * 100_000, "clear_resource_path": False})
    recorded_metrics.assert_http(resource="{long}")


@pytest.mark.parametrize("label", ["app_type", "resource", "method"])
def test_a_label_that_is_no_text_raises_at_once(label: str) -> None:
    with pytest.raises(TypeError, match=f"{label} of an HTTP exchange must be a string, not 5"):
        http_tracking(**{**CALL, label: 5})


@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), None, "7"])
@pytest.mark.parametrize("name", ["duration", "request_size", "response_size"])
def test_a_number_that_is_no_measurement_is_left_out(name: str, number: Any, caplog: pytest.LogCaptureFixture) -> None:
    with record_metrics(strict=False) as recorded:
        http_tracking(**{**CALL, name: number})
        http_tracking(**{**CALL, name: number})
        http_tracking(**CALL)
    assert len(recorded.exchanges) == 1
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"http_tracking({name}={number!r}) is no measurement; accepted: a number from 0 on" in message
    with record_metrics(), pytest.raises(TrackingError, match="is no measurement"):
        http_tracking(**{**CALL, name: number})


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("0", 0),
        ("", None),
        (None, None),
        ("-5", None),
        ("5.0", None),
        ("\u0665", None),
        ("9" * 18, 10**18 - 1),
        ("9" * 5000, None),
    ],
)
def test_a_length_is_a_number_of_digits(text: str | None, length: int | None) -> None:
    assert declared_length(text) == length


@pytest.mark.parametrize("status", ["ok", 2000, 99, True, 200.0, "Timeout", " 200"])
def test_a_status_that_is_none_counts_as_an_error_and_is_said(
    status: Any, recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrackingError, match=r"http_tracking\(status_code=.*\) is no status, and is counted as error"):
        http_tracking(**{**CALL, "status_code": status})
    with record_metrics(strict=False) as recorded:
        http_tracking(**{**CALL, "status_code": status})
    recorded.assert_http(status="error")
    assert "is no status" in caplog.text


def test_an_app_type_that_is_empty_raises_at_once() -> None:
    with pytest.raises(ValueError, match="app_type is empty; name what the requests are sent to"):
        http_tracking(**{**CALL, "app_type": ""})


def test_an_exchange_ends_once(recorded_metrics: RecordedMetrics) -> None:
    exchange = Exchange("llm", "get")
    exchange.request_bytes += 3
    exchange.end("200", "x")
    exchange.end("500", "y")
    assert recorded_metrics.exchanges == [HttpExchange("GET", "200", "x", "llm", 3, 0)]


def test_an_exchange_that_is_under_way_ends_on_the_backend_in_force() -> None:
    first, second = ListBackend(), ListBackend()
    with override(backends=(first,)):
        exchange = Exchange("llm", "GET")
        exchange.end("200", "x")
    with override(backends=(second,)):
        Exchange("llm", "GET").end("200", "x")
    assert len(first.http) == len(second.http) == 1


def test_a_series_is_bound_once_and_again_after_a_change() -> None:
    backend = ListBackend()
    with override(backends=(backend,)):
        for _ in range(3):
            http_tracking(**CALL)
        assert len(backend.bound_http) == 1
        with override(backends=(backend,), env="other"):
            http_tracking(**CALL)
        http_tracking(**CALL)
    assert len(backend.bound_http) == 3
    assert len(backend.http) == 5


def test_labels_are_valid_text_and_env_and_app_come_from_the_settings(registry: CollectorRegistry) -> None:
    configure(app="shop\ud800bot", env="prod", backends=[PrometheusBackend(registry)], strict=True)
    http_tracking(**{**CALL, "app_type": "a\ud800", "resource": "\udcff"})
    values = parsed(render_metrics(registry=registry)[0].decode())
    labels = {"method": "POST", "status": "200", "resource": "{token}", "app_type": "a\ufffd"}
    assert values[series("genapp_http_requests_total", env="prod", app="shop\ufffdbot", **labels)] == 1


def test_a_backend_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    good = ListBackend()
    with override(backends=(FaultyBackend("http"), FaultyBackend("bind_http"), good), strict=False):
        http_tracking(**CALL)
        http_tracking(**CALL)
    assert len(good.http) == 2
    assert "finished raised OSError: http is broken" in caplog.text
    assert "llm_common_bind_http raised OSError: bind_http is broken" in caplog.text


@pytest.mark.parametrize("broken", ["http", "bind_http"])
def test_in_strict_mode_a_fault_raises_but_in_place_of_no_exception(broken: str) -> None:
    with override(backends=(FaultyBackend(broken),), strict=True):
        with pytest.raises(OSError, match=f"{broken} is broken"):
            Exchange("llm", "GET").end("200", "x")
        Exchange("llm", "GET").end("error", "x", ValueError("the application's own"))


def test_a_recorder_that_is_none_is_an_error_that_says_what_is_missing() -> None:
    from llm_common import hookimpl

    class Backend:
        @hookimpl
        def llm_common_bind_http(self) -> object:
            return "no recorder"

    with (
        override(backends=(Backend(),), strict=True),
        pytest.raises(
            PluginError,
            match=r"bind_http of the backend 'Backend' returned 'no recorder', which has no method finished\(\); "
            r"a recorder has finished\(seconds, request_bytes, response_bytes\)$",
        ),
    ):
        http_tracking(**CALL)


def test_a_plugin_that_records_http_is_a_backend() -> None:
    from llm_common import hookimpl

    class Plugin:
        @hookimpl
        def llm_common_bind_http(self) -> None: ...

    with pytest.raises(PluginError, match="has llm_common_bind_http, so it is a backend: give it in backends="):
        configure(plugins=[Plugin()], backends=["noop"])


def test_bounds_can_be_configured_until_something_was_recorded(registry: CollectorRegistry) -> None:
    from llm_common.errors import ConfigurationError

    backend = PrometheusBackend(registry)
    configure(app="shop_bot", backends=[backend], http_duration_buckets=[1])
    configure(app="shop_bot", backends=[backend], http_duration_buckets=[2], http_size_buckets=[5, 50], strict=True)
    http_tracking(**CALL)
    text = render_metrics(registry=registry)[0].decode()
    assert 'le="2.0"' in text
    assert 'le="50.0"' in text
    with pytest.raises(ConfigurationError, match="http_size_buckets can't change from"):
        configure(app="shop_bot", backends=[backend], http_duration_buckets=[2], http_size_buckets=[7])


LABELS = {"method": "POST", "status": "200", "resource": "v1/users/{int}", "app_type": "llm"}


def test_a_scrape_shows_all_three_metrics(scrape: Scrape) -> None:
    for size in (0, 50, 5000):
        http_tracking(**{**CALL, "request_size": size})
    values, labels = scrape(), {**LABELS, "env": "dev", "app": "shop_bot"}
    assert values[series("genapp_http_requests_total", **labels)] == 3
    assert values[series("genapp_http_request_duration_sec_sum", **labels)] == 1.5
    assert values[series("genapp_http_request_duration_sec_bucket", le="0.5", **labels)] == 3
    assert values[series("genapp_http_request_duration_sec_bucket", le="0.25", **labels)] == 0
    assert values[series("genapp_http_request_size_bytes_bucket", le="100.0", direction="in", **labels)] == 2
    assert values[series("genapp_http_request_size_bytes_sum", direction="in", **labels)] == 5050
    assert values[series("genapp_http_request_size_bytes_count", direction="out", **labels)] == 3
    assert len(values) == 1 + (len(HTTP_DURATION_BUCKETS) + 3) + 2 * (len(HTTP_SIZE_BUCKETS) + 3)


exchanges = st.lists(
    st.tuples(
        st.sampled_from(["GET", "brew"]),
        st.sampled_from([200, 404, "timeout"]),
        st.sampled_from(["/", "/items/1", "/items/2/x"]),
        st.integers(0, 2**20).map(lambda number: number / 1024),
        st.integers(0, 2**30),
        st.integers(0, 2**30),
    ),
    max_size=150,
)


@given(exchanges)
def test_memory_and_prometheus_give_the_same_numbers(
    program: list[tuple[str, int | str, str, float, int, int]],
) -> None:
    registry, memory = CollectorRegistry(), MemoryBackend()
    with unconfigured():
        configure(app="shop_bot", backends=[PrometheusBackend(registry), memory], strict=True)
        for method, status, resource, seconds, request_size, response_size in program:
            http_tracking("x_api", resource, method, response_size, status, seconds, request_size)
    values = parsed(render_metrics(registry=registry)[0].decode())
    recorded = RecordedMetrics(memory)
    for (name, labels), value in values.items():
        assert recorded.metric_value(name, **dict(labels)) == value
    total = sum(value for (name, _), value in values.items() if name == "genapp_http_requests_total")
    assert total == len(program) == len(memory.exchanges)


def test_counts_are_exact_from_many_threads_with_scrapes_all_the_time() -> None:
    store = BatchedStore(Buckets())
    threads, number = 8, 10_000
    done = threading.Event()

    def record() -> None:
        batch = store.http(HttpSeries("GET", "200", "x", "app_api"), "dev", "app")
        for _ in range(number):
            batch.finished(0.5, 2, 3)

    def scrape() -> None:
        previous = 0
        while not done.is_set():
            for _, totals in store.http_totals():
                assert totals.exchanges == sum(totals.durations) == sum(totals.request_sizes) >= previous
                previous = totals.exchanges

    scraper = threading.Thread(target=scrape)
    workers = [threading.Thread(target=record) for _ in range(threads)]
    for thread in (scraper, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    scraper.join()
    ((_, totals),) = store.http_totals()
    assert (totals.exchanges, totals.seconds) == (threads * number, threads * number * 0.5)
    assert (totals.request_bytes, totals.response_bytes) == (threads * number * 2, threads * number * 3)


def test_the_list_stays_short_though_nobody_scrapes() -> None:
    batch = BatchedStore(Buckets()).http(HttpSeries("GET", "200", "x", "app_api"), "dev", "app")
    for _ in range(10 * http_series.FOLD_AT):
        batch.finished(0.5, 1, 1)
    assert len(batch._samples) < 3 * http_series.FOLD_AT
    batch.fold_now()
    batch.fold_now()  # nothing new
    assert batch.totals.exchanges == 10 * http_series.FOLD_AT


def test_a_configuration_that_changes_while_a_series_is_bound_counts_it_where_it_began() -> None:
    from llm_common import hookimpl

    memory = MemoryBackend()

    class Reconfiguring(ListBackend):
        @hookimpl
        def llm_common_bind_http(self, series: HttpSeries) -> Any:
            configure(backends=[memory])
            return super().llm_common_bind_http(series)

    first = Reconfiguring()
    configure(backends=[first], strict=True)
    http_tracking(**CALL)
    http_tracking(**CALL)
    assert len(first.http) == len(memory.exchanges) == 1
