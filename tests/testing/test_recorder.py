import asyncio
import contextlib
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common import action_tracking, action_tracking_decorator, configure, http_tracking
from llm_common.errors import TrackingError
from llm_common.testing import ActionEvent, RecordedMetrics, record_metrics
from llm_common.testing.strategies import TrackedAction, actions
from recording import ListBackend


@action_tracking_decorator("menu_handler")
def decorated_at_import() -> None: ...


def track(name: str, *sizes: float, fails: bool = False) -> None:
    with action_tracking(name) as tracker:
        for size in sizes:
            tracker.size(size)
        if fails:
            tracker.to_fail("because")


def test_events_are_plain_data_in_order(recorded_metrics: RecordedMetrics) -> None:
    track("menu_handler", 1, 2)
    track("answer_llm_call", fails=True)
    decorated_at_import()
    assert recorded_metrics.events == recorded_metrics.events
    assert recorded_metrics.events == [
        ActionEvent("menu_handler", "ok", 3),
        ActionEvent("answer_llm_call", "error"),
        ActionEvent("menu_handler"),
    ]
    assert recorded_metrics.events[1].error_name == "because"


def test_an_exception_gives_the_event_its_name(recorded_metrics: RecordedMetrics) -> None:
    with contextlib.suppress(LookupError), action_tracking("menu_handler"):
        raise LookupError
    assert recorded_metrics.events[0].error_name == "LookupError"


def test_an_action_is_asserted_with_status_times_and_size(recorded_metrics: RecordedMetrics) -> None:
    track("menu_handler", 5)
    track("menu_handler", fails=True)
    track("menu_handler")
    recorded_metrics.assert_action("menu_handler", times=3)
    recorded_metrics.assert_action("menu_handler", status="ok", times=2)
    recorded_metrics.assert_action("menu_handler", status="ok", size=5)
    recorded_metrics.assert_action("menu_handler", status="ok", size=None)
    recorded_metrics.assert_action("menu_handler", size=None, times=2)
    recorded_metrics.assert_no_action("answer_llm_call")
    with pytest.raises(ValueError, match="'okay' is no status; accepted: ok, error, cancelled"):
        recorded_metrics.assert_action("menu_handler", status="okay")


def test_a_failure_says_what_was_expected_what_was_recorded_and_the_nearest_miss(
    recorded_metrics: RecordedMetrics,
) -> None:
    track("menu_handler", 5)
    track("menu_handler", 5)
    track("order_handler", fails=True)
    with pytest.raises(AssertionError) as caught:
        recorded_metrics.assert_action("menu_handlr", status="ok", size=5)
    assert str(caught.value).splitlines() == [
        "expected the action 'menu_handlr' once with status=ok, size=5; recorded not at all",
        "the nearest miss: 'menu_handler'",
        "recorded in all:",
        "  menu_handler   ok         twice size=5",
        "  order_handler  error      once (because)",
    ]
    with pytest.raises(AssertionError) as caught:
        recorded_metrics.assert_action("menu_handler", times=3)
    assert str(caught.value).splitlines() == [
        "expected the action 'menu_handler' 3 times; recorded twice",
        "of 'menu_handler' was recorded:",
        "  menu_handler  ok         twice size=5",
    ]
    with pytest.raises(AssertionError, match="expected the action 'order_handler' not at all; recorded once"):
        recorded_metrics.assert_no_action("order_handler")


def test_a_failure_with_nothing_recorded_says_so(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(AssertionError, match="no action at all"):
        recorded_metrics.assert_action("menu_handler")
    assert recorded_metrics.report() == "nothing was recorded"
    assert repr(recorded_metrics) == "<RecordedMetrics: nothing was recorded>"


def test_metrics_are_asserted_in_the_documented_language() -> None:
    configure(app="shop_bot", env="prod", backends=["noop"])
    with record_metrics() as recorded:
        track("menu_handler", 2, 3)
        track("menu_handler", fails=True)
        track("order_handler")
        recorded.assert_metric("genapp_action_count_total", 1, name="menu_handler", status="ok")
        recorded.assert_metric("genapp_action_count_total", 2, name="menu_handler", app="shop_bot", env="prod")
        recorded.assert_metric("genapp_action_count_total", 0, name="menu_handler", env="dev")
        recorded.assert_metric("genapp_action_count_total", 3)
        recorded.assert_metric("genapp_action_size_total", 5, name="menu_handler")
        recorded.assert_metric("genapp_action_size_total", 0, name="order_handler")
        recorded.assert_metric("genapp_action_duration_sec_count", 2, name="menu_handler")
        recorded.assert_metric("genapp_action_duration_sec_bucket", 2, name="menu_handler", le="+Inf")
        recorded.assert_metric("genapp_action_duration_sec_bucket", 2, name="menu_handler", le="60")
        seconds = sum(event.seconds for event in recorded.events)
        recorded.assert_metric("genapp_action_duration_sec_sum", seconds)
        assert recorded.metric_value("genapp_action_duration_sec_sum") > 0
        with pytest.raises(AssertionError) as caught:
            recorded.assert_metric("genapp_action_count_total", 2, name="menu_handler", status="ok")
    assert str(caught.value).splitlines() == [
        "expected genapp_action_count_total{name='menu_handler', status='ok'} to be 2; it is 1",
        "of 'menu_handler' was recorded:",
        "  menu_handler  ok         once size=5",
        "  menu_handler  error      once (because)",
    ]


@pytest.mark.parametrize(
    ("metric", "labels", "message"),
    [
        ("genapp_action_counts_total", {}, "did you mean 'genapp_action_count_total'"),
        ("zzz", {}, "unknown metric 'zzz' .known: genapp_http_requests_total"),
        ("genapp_http_requests_total", {"direction": "in"}, "has no label 'direction'; its labels: method, status"),
        ("genapp_http_request_size_bytes", {}, "is a histogram.*genapp_http_request_size_bytes_bucket"),
        ("genapp_action_count_total", {"status": "okay"}, "'okay' is no status"),
        ("genapp_action_duration_sec", {}, "is a histogram.*ask for one of genapp_action_duration_sec_count"),
        ("genapp_action_size_total", {"status": "ok"}, "has no label 'status'; its labels: name, env, app"),
        ("genapp_action_duration_sec_bucket", {}, "needs the label le"),
        ("genapp_action_duration_sec_bucket", {"le": "0.02"}, "no bucket has le='0.02'; the bounds are 0.01, 0.05"),
        ("genapp_action_duration_sec_bucket", {"le": "x"}, "no bucket has le='x'"),
    ],
)
def test_a_metric_or_label_that_does_not_exist_is_an_error_and_no_zero(
    recorded_metrics: RecordedMetrics, metric: str, labels: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recorded_metrics.metric_value(metric, **labels)


def test_a_failure_over_env_or_app_says_which_were_recorded(recorded_metrics: RecordedMetrics) -> None:
    track("menu_handler")
    with pytest.raises(AssertionError, match=r"it is 0 \(recorded with env='dev', app='"):
        recorded_metrics.assert_metric("genapp_action_count_total", 1, name="menu_handler", env="prod")


def test_what_is_no_text_is_an_error_that_says_where(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(TypeError, match=r"the action's name, as in .* must be a string, not None"):
        recorded_metrics.assert_action(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the label name must be a string, not 3"):
        recorded_metrics.metric_value("genapp_action_count_total", name=3)  # type: ignore[arg-type]


def test_a_delta_sees_what_happened_inside_its_block_alone(recorded_metrics: RecordedMetrics) -> None:
    track("menu_handler")
    with recorded_metrics.delta() as change:
        assert change.events == []
        track("order_handler", 4)
        change.assert_action("order_handler")
    track("menu_handler")
    assert change.events == [ActionEvent("order_handler", size=4)]
    change.assert_no_action("menu_handler")
    change.assert_metric("genapp_action_size_total", 4)
    assert len(recorded_metrics.events) == 3


def test_nested_recordings_each_see_their_own_and_restore(recorded_metrics: RecordedMetrics) -> None:
    track("1_task")
    with record_metrics() as inner:
        track("2_task")
    track("3_task")
    assert inner.events == [ActionEvent("2_task")]
    assert recorded_metrics.events == [ActionEvent("1_task"), ActionEvent("3_task")]


def test_a_recording_leaves_no_state_behind() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    with pytest.raises(KeyError), record_metrics():
        track("menu_handler")
        raise KeyError
    decorated_at_import()
    assert backend.calls == [("menu_handler", "ok")]


def test_actions_in_threads_and_tasks_are_recorded(recorded_metrics: RecordedMetrics) -> None:
    thread = threading.Thread(target=track, args=("thread_task",))
    thread.start()
    thread.join()

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(track, "async_task") for _ in range(3)))

    asyncio.run(main())
    recorded_metrics.assert_action("thread_task")
    recorded_metrics.assert_action("async_task", times=3)


def test_a_tracking_fault_raises(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(TrackingError), action_tracking("menu_handler") as tracker:
        tracker.size(-1)
    with record_metrics(strict=False):
        track("menu_handler", -1)


def test_names_are_compared_as_backends_see_them(recorded_metrics: RecordedMetrics) -> None:
    track("\ud800_handler")
    recorded_metrics.assert_action("\ud800_handler")
    recorded_metrics.assert_metric("genapp_action_count_total", 1, name="\ud800_handler")


def test_buckets_follow_the_configuration() -> None:
    configure(app="shop_bot", backends=["noop"], action_duration_buckets=[0.5])
    with record_metrics() as recorded:
        track("menu_handler")
        recorded.assert_metric("genapp_action_duration_sec_bucket", 1, le="0.5")


@given(st.lists(actions(), max_size=5))
def test_a_program_of_actions_records_the_events_that_it_foretells(program: list[TrackedAction]) -> None:
    with record_metrics() as recorded:
        for action in program:
            action.perform()
    expected = [event for action in program for event in action.events()]
    assert [(event.name, event.status) for event in recorded.events] == [
        (event.name, event.status) for event in expected
    ]
    for found, wanted in zip(recorded.events, expected, strict=True):
        assert found.size == pytest.approx(wanted.size)


def exchange(resource: str, status: int = 200, app_type: str = "llm") -> None:
    http_tracking(app_type, resource, "POST", 20, status, 0.5, 10)


def test_http_exchanges_are_asserted_by_their_labels(recorded_metrics: RecordedMetrics) -> None:
    exchange("v1/chat")
    exchange("v1/chat", 500)
    exchange("auth", 404, "auth_api")
    with action_tracking("menu_handler"):
        pass
    recorded_metrics.assert_http(resource="v1/chat", status=500)
    recorded_metrics.assert_http(resource="v1/chat", times=2)
    recorded_metrics.assert_http(method="POST", app_type="llm", status="200")
    recorded_metrics.assert_http(times=3)
    recorded_metrics.assert_http(resource="nothing", times=0)
    with recorded_metrics.delta() as later:
        exchange("v1/chat")
    later.assert_http(times=1)
    assert recorded_metrics.metric_value("genapp_http_requests_total", status="200") == 2
    assert recorded_metrics.metric_value("genapp_http_requests_total", status="timeout") == 0
    assert recorded_metrics.metric_value("genapp_action_count_total") == 1
    assert recorded_metrics.metric_value("genapp_action_size_total") == 0
    recorded_metrics.assert_metric("genapp_http_request_duration_sec_sum", 2.0)
    recorded_metrics.assert_metric("genapp_http_request_size_bytes_bucket", 4, le="100", direction="out")
    recorded_metrics.assert_metric("genapp_http_request_size_bytes_sum", 40, direction="in")


def test_a_failed_assertion_about_http_says_what_was_recorded(recorded_metrics: RecordedMetrics) -> None:
    with pytest.raises(AssertionError, match="no HTTP exchange at all"):
        recorded_metrics.assert_http()
    exchange("v1/chat")
    exchange("v1/chat")
    with pytest.raises(AssertionError) as raised:
        recorded_metrics.assert_http(resource="v1/chat", status=500, times=2)
    assert str(raised.value).splitlines() == [
        "expected an HTTP exchange twice with resource='v1/chat', status='500'",
        "recorded not at all; recorded in all:",
        "  llm  POST v1/chat  200  twice",
    ]
    assert recorded_metrics.report() == "  llm  POST v1/chat  200  twice"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"status": "timout"}, "'timout' is no HTTP status; accepted: three digits, error, timeout or cancelled"),
        ({"status": 2000}, "'2000' is no HTTP status"),
        ({"method": "get"}, "'get' is no method; accepted: CONNECT, DELETE, GET"),
        ({"resource": "/x"}, "a resource has no outer slashes; write 'x' for '/x'"),
    ],
)
def test_a_value_that_no_exchange_can_have_is_an_error_and_no_zero(
    recorded_metrics: RecordedMetrics, labels: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recorded_metrics.assert_http(times=0, **labels)
    if "status" not in labels or isinstance(labels["status"], str):
        with pytest.raises(ValueError, match=message):
            recorded_metrics.assert_metric("genapp_http_requests_total", 0, **labels)
    with pytest.raises(ValueError, match="'inn' is no direction; accepted: in or out"):
        recorded_metrics.assert_metric("genapp_http_request_size_bytes_sum", 0, direction="inn")
    with pytest.raises(TypeError, match="resource must be a string, not 5"):
        recorded_metrics.assert_http(resource=5)  # type: ignore[arg-type]
    recorded_metrics.assert_http(method="{other}", status="{other}", resource="/", times=0)
