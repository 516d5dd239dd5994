"""At most so many series for each metric; past that everything goes to one, on every backend alike."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llm_common import action_tracking, configure, http_tracking
from llm_common.backends.memory import MemoryBackend, MetricRecord
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.bound import bindings, http_bindings
from llm_common.dispatch import override
from llm_common.prometheus import render_metrics
from llm_common.series_limit import SeriesLimit
from llm_common.testing import RecordedMetrics
from llm_common.testing.strategies import hostile_names
from scraping import parsed, series


def exchange(number: int) -> None:
    http_tracking(
        app_type="auth_api",
        resource=f"path_{'x' * number}",
        method="GET",
        response_size=20,
        status_code=200,
        duration=0.5,
        request_size=10,
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_past_the_limit_names_are_counted_together(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[PrometheusBackend(registry), memory], max_series=3, strict=True)
    for number in range(10):
        with action_tracking(f"action_{number}") as tracker:
            tracker.size(2)
    with action_tracking("action_0"):
        pass
    values = parsed(render_metrics(registry=registry)[0].decode())
    common = {"env": "dev", "app": "shop_bot"}
    counts = {key: value for key, value in values.items() if "genapp_action_count_total" in str(key)}
    assert len(counts) == 4
    assert values[series("genapp_action_count_total", name="{other}", status="ok", **common)] == 7
    assert values[series("genapp_action_size_total", name="{other}", **common)] == 14
    assert values[series("genapp_action_count_total", name="action_0", status="ok", **common)] == 2
    assert [event.name for event in memory.events] == ["action_0", "action_1", "action_2", *["{other}"] * 7, "action_0"]
    (warning,) = warnings(caplog)
    assert warning == (
        "genapp_action_count_total has series for 3 names, which is the limit (max_series); further names are counted "
        "together as '{other}', the first of them 'action_3'. A name is a literal: is one built from user data?"
    )
    assert len(bindings) == 4


def test_past_the_limit_http_series_are_counted_together(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryBackend()
    configure(app="shop_bot", backends=[PrometheusBackend(registry), memory], max_series=3, strict=True)
    for number in range(10):
        exchange(number)
    exchange(0)
    values = parsed(render_metrics(registry=registry)[0].decode())
    other = {"method": "{other}", "status": "{other}", "resource": "{other}", "app_type": "{other}"}
    other |= {"env": "dev", "app": "shop_bot"}
    assert values[series("genapp_http_requests_total", **other)] == 7
    assert values[series("genapp_http_request_duration_sec_sum", **other)] == 3.5
    assert values[series("genapp_http_request_size_bytes_sum", direction="out", **other)] == 140
    assert [one.resource for one in memory.exchanges] == ["path_", "path_x", "path_xx", *["{other}"] * 7, "path_"]
    (warning,) = warnings(caplog)
    assert warning == (
        "genapp_http_requests_total has 3 series, which is the limit (max_series); further ones are counted together "
        "as '{other}', the first of them ('GET', '200', 'path_xxx', 'auth_api'). Is there a part of the path that "
        "varies and isn't a number or UUID?"
    )
    assert len(http_bindings) == 4


def test_by_default_there_is_room_for_2_000_names_and_10_000_http_series(recorded_metrics: RecordedMetrics) -> None:
    for number in range(2_001):
        with action_tracking(f"action_{number}"):
            pass
    for number in range(10_001):
        http_tracking("x_api", f"{number:b}".replace("1", "a/").replace("0", "b/"), "GET", 0, 200, 0.1, 0)
    assert {event.name for event in recorded_metrics.events[-2:]} == {"action_1999", "{other}"}
    assert len({one.resource for one in recorded_metrics.exchanges}) == 10_001
    assert recorded_metrics.exchanges[-1].resource == "{other}"


def test_a_registry_has_no_more_series_however_often_it_is_configured(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    backend = PrometheusBackend(registry)
    for start in range(0, 50, 10):
        configure(app="shop_bot", backends=[backend], max_series=3)
        for number in (*range(start, start + 10), 0):
            exchange(number)
    values = parsed(render_metrics(registry=registry)[0].decode())
    counts = {key: value for key, value in values.items() if key[0] == "genapp_http_requests_total"}
    assert sorted(counts.values()) == [1, 1, 6, 47]
    assert len(warnings(caplog)) == 1
    configure(app="shop_bot", backends=[backend], max_series=4)
    exchange(40)
    exchange(41)
    assert len(warnings(caplog)) == 2


def test_names_and_models_that_had_series_keep_them_when_it_is_configured_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = MemoryBackend()
    for model in ("small", "large"):
        configure(app="shop_bot", backends=[memory], extra_metrics="llm_tokens", max_series=1)
        for name in (f"{model}_llm_call", "small_llm_call"):
            with action_tracking(name) as tracker:
                tracker.tokens(model, input=1)
        exchange(len(model))
        exchange(len(name))
    assert [event.name for event in memory.events] == ["small_llm_call", "small_llm_call", "{other}", "small_llm_call"]
    models = {record.values[2] for record in memory.records if isinstance(record, MetricRecord)}
    assert models == {"small", "{other}"}
    assert len(warnings(caplog)) == 3  # one for names, one for models, one for HTTP series


def test_each_override_has_a_limit_of_its_own() -> None:
    memory = MemoryBackend()
    with override(backends=(memory,), max_series=1):
        for name in ("one", "two"):
            with action_tracking(name):
                pass
    with override(backends=(memory,), max_series=1), action_tracking("three"):
        pass
    assert [event.name for event in memory.events] == ["one", "{other}", "three"]


def test_once_trackers_can_be_found_a_name_that_was_admitted_stays_so() -> None:
    memory = MemoryBackend()
    from llm_common.dispatch import make_trackers_findable, state

    before = state.findable
    try:
        with override(backends=(memory,), max_series=1):
            for name in ("one", "two", "one"):
                with action_tracking(name):
                    pass
                make_trackers_findable()
    finally:
        state.findable = before
    assert [event.name for event in memory.events] == ["one", "{other}", "one"]


@given(st.lists(hostile_names(), max_size=30), st.integers(1, 10))
def test_no_more_keys_are_admitted_than_the_limit_and_those_always(keys: list[str], most: int) -> None:
    limit = SeriesLimit(most)
    admitted = [key for key in keys if limit.admits(key)]
    assert len(set(admitted)) == min(most, len(set(keys)))
    assert all(limit.admits(key) for key in admitted)


def test_a_limit_that_is_raised_has_room_for_all_that_it_allows_more() -> None:
    lower = SeriesLimit(2)
    assert [lower.admits(key) for key in "abcde"] == [True, True, False, False, False]
    lower.told = True
    higher = SeriesLimit(4, lower)
    assert [higher.admits(key) for key in "eadcb"] == [True, True, True, False, True]
    assert not higher.told
    assert SeriesLimit(2, lower).told


def test_threads_that_come_at_once_do_not_exceed_the_limit() -> None:
    limit = SeriesLimit(100)
    admitted: list[set[int]] = []
    start = threading.Barrier(8)

    def ask(offset: int) -> None:
        start.wait(20)
        admitted.append({key for key in range(offset, offset + 200) if limit.admits(key)})

    threads = [threading.Thread(target=ask, args=(50 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 90 <= len(set.union(*admitted)) <= 100


def test_a_key_that_finds_its_number_too_great_is_not_admitted() -> None:
    class Racing(set[object]):
        def __len__(self) -> int:
            return 0  # what a thread sees that was overtaken by others

    limit = SeriesLimit(1)
    limit._admitted = Racing()
    assert limit.admits("one")
    assert not limit.admits("two")


WORKER = """
from llm_common.prometheus import action_tracking, configure, http_tracking, render_metrics
configure(app="shop_bot", strict=True, max_series=2)
for number in range(5):
    http_tracking("x_api", "abcde"[number], "GET", 20, 200, 0.5, 10)
    with action_tracking("abcde"[number]): pass
import sys
sys.stdout.buffer.write(render_metrics()[0])
"""


@pytest.mark.parametrize("several", [False, True])
def test_the_limit_holds_with_one_process_and_with_several(tmp_path: Path, several: bool) -> None:
    environ = {**os.environ, **({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if several else {})}
    done = subprocess.run([sys.executable, "-c", WORKER], env=environ, capture_output=True, text=True, timeout=60)
    assert "which is the limit" in done.stderr
    values = parsed(done.stdout)
    other = dict.fromkeys(("method", "status", "resource", "app_type"), "{other}")
    common = {"env": "dev", "app": "shop_bot"}
    assert values[series("genapp_http_requests_total", **other, **common)] == 3
    assert values[series("genapp_action_count_total", name="{other}", status="ok", **common)] == 3
    one = {"method": "GET", "status": "200", "resource": "a", "app_type": "x_api"}
    assert values[series("genapp_http_request_size_bytes_sum", direction="in", **one, **common)] == 10
    assert values[series("genapp_http_request_size_bytes_bucket", direction="out", le="100.0", **one, **common)] == 1
    assert values[series("genapp_http_request_duration_sec_count", **one, **common)] == 1
