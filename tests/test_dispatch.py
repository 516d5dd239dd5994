import gc
import importlib.metadata
import inspect
import logging
import os
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from llm_common import (
    action_tracking,
    action_tracking_decorator,
    configure,
    current_action,
    dispatch,
    hookimpl,
    http_tracking,
    pipeline,
    plugins,
    shutdown,
)
from llm_common.backends.memory import EndedRecord, MemoryBackend, SizedRecord
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.contract import HttpSeries, Status
from llm_common.dispatch import Configuration, State, override
from llm_common.errors import ConfigurationError, LLMCommonError, PluginError, TrackingError, UnknownBackendError
from llm_common.prometheus import render_metrics
from llm_common.tracker import NO_ACTION
from recording import FaultyBackend, ListBackend
from scraping import parsed, series


def track(name: str = "menu_handler") -> None:
    with action_tracking(name) as tracker:
        tracker.size(2)


def test_several_backends_each_get_every_action() -> None:
    first, second = ListBackend("first"), ListBackend("second")
    configure(app="shop_bot", backends=[first, second])
    track()
    assert first.calls == second.calls == [("menu_handler", 2), ("menu_handler", "ok")]


def test_a_name_is_bound_once_per_backend_and_configuration() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    track()
    track()
    assert backend.bound == ["menu_handler"]
    configure(app="shop_bot", backends=[backend])
    track()
    assert backend.bound == ["menu_handler"] * 2


@pytest.mark.parametrize("operation", ["bind", "finished", "sized", "shutdown"])
def test_a_backend_that_raises_harms_neither_the_application_nor_the_others(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    faulty, healthy = FaultyBackend(operation), ListBackend()
    configure(app="shop_bot", backends=[faulty, healthy])
    for _ in range(3):
        track()
    with pytest.raises(KeyError), action_tracking("menu_handler"):
        raise KeyError
    shutdown()
    assert healthy.calls == [("menu_handler", 2), ("menu_handler", "ok")] * 3 + [("menu_handler", "error")]
    assert len(healthy.shutdowns) == 1
    records = [record for record in caplog.records if record.name == "llm_common" and record.exc_info]
    assert records[0].levelname == "WARNING"
    assert {record.levelname for record in records[1:]} <= {"DEBUG"}
    assert "faulty" in records[0].getMessage()
    message = records[0].getMessage()
    assert ("llm_common_shutdown raised" in message) == (operation == "shutdown")
    assert message.endswith("what it held back may be lost") == (operation == "shutdown")
    assert "OSError" in records[0].getMessage()
    assert "is broken" in records[0].getMessage()


def test_in_strict_mode_a_fault_of_a_backend_raises_after_the_others_were_served() -> None:
    healthy = ListBackend()
    configure(app="shop_bot", backends=[FaultyBackend("finished", "sized"), healthy], strict=True)
    with pytest.raises(OSError, match="finished is broken"), action_tracking("menu_handler"):
        pass
    with pytest.raises(OSError, match="sized is broken"), action_tracking("menu_handler") as tracker:
        tracker.size(4)
    assert healthy.calls == [("menu_handler", "ok"), ("menu_handler", 4), ("menu_handler", "error")]


class Raising:
    """Fails wherever it is to record something."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fail(self, *measured: object) -> None:
        raise OSError(f"{self.name} is broken")

    @hookimpl
    def llm_common_bind_action(self, name: str) -> object:
        if name == "unbound_task":
            self.fail()
        end = {"ended" if name == "event_task" else "finished": self.fail}
        return SimpleNamespace(**end, sized=self.fail)

    @hookimpl
    def llm_common_bind_http(self, series: HttpSeries) -> object:
        return SimpleNamespace(finished=self.fail)

    @hookimpl
    def llm_common_bind_metric(self, values: tuple[str, ...]) -> object:
        return SimpleNamespace(record=self.fail)


def begin(name: str) -> None:
    with action_tracking(name):
        pass


def use_tokens() -> None:
    with action_tracking("answer_llm_call") as tracker:
        tracker.tokens("small", input=1)


@pytest.mark.parametrize(
    ("operation", "scene"),
    [
        ("llm_common_bind_action", lambda: begin("unbound_task")),
        ("finished", lambda: begin("menu_handler")),
        ("ended", lambda: begin("event_task")),
        ("sized", track),
        ("finished", lambda: http_tracking("web", "order", "GET", 1, 200, 0.1, 1)),
        ("record", use_tokens),
    ],
)
def test_each_fault_is_told_by_backend_and_operation_and_in_strict_mode_the_first_one_is_raised(
    operation: str, scene: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    backends = [Raising("first"), Raising("second")]
    configure(app="shop_bot", backends=backends, extra_metrics="llm_tokens")
    scene()
    told = [record.getMessage() for record in caplog.records if f" {operation} raised" in record.getMessage()]
    lost = "the application is not affected, these measurements of this backend are lost"
    assert told == [f"{name}: {operation} raised OSError: {name} is broken; {lost}" for name in ("first", "second")]
    configure(app="shop_bot", backends=backends, extra_metrics="llm_tokens", strict=True)
    with pytest.raises(OSError, match="first is broken"):
        scene()


def test_a_misuse_is_told_once_for_each_action_and_operation(caplog: pytest.LogCaptureFixture) -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise OSError

    configure(app="shop_bot", backends=[ListBackend()], extra_metrics="llm_tokens")
    for name in ("one_task", "two_task", "one_task"):
        with action_tracking(name) as tracker:
            tracker.size(Unshowable())  # type: ignore[arg-type]
            tracker.tokens("small", input=-1)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    no_size = "size(a Unshowable that can't be shown) is no size; accepted: a finite number that isn't negative"
    no_tokens = "tokens('small', input=-1) can't be added; accepted: the model's name, and numbers that aren't negative"
    assert told == [f"action '{name}': {text}" for name in ("one_task", "two_task") for text in (no_size, no_tokens)]


def test_sizes_stay_whole_numbers_where_these_are_exact_and_are_floating_point_numbers_else() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], strict=True)
    for amount in (0, 7, 2**53, 2**53 + 2, 0.5, True, Fraction(1, 4), Decimal(3)):
        with action_tracking("menu_handler") as tracker:
            tracker.size(amount)  # type: ignore[arg-type]
    sizes = [size for _, size in backend.calls[::2]]
    assert sizes == [0, 7, 2**53, 2**53 + 2, 0.5, 1, 0.25, 3]
    assert [type(size) for size in sizes] == [int] * 3 + [float] * 5


def test_in_strict_mode_a_fault_never_replaces_the_exception_of_the_block() -> None:
    configure(app="shop_bot", backends=[FaultyBackend("finished")], strict=True)
    raised = KeyError("mine")
    with pytest.raises(KeyError) as caught, action_tracking("menu_handler"):
        raise raised
    assert caught.value is raised
    assert raised.__context__ is None


def test_a_fault_of_an_event_recorder_is_isolated_too(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryBackend()
    memory.add = lambda record: 1 / 0  # type: ignore[method-assign, assignment]
    healthy = ListBackend()
    configure(app="shop_bot", backends=[memory, healthy])
    track()
    assert len(healthy.calls) == 2
    assert "ended raised ZeroDivisionError" in caplog.text


def test_who_interrupts_a_recorder_is_obeyed() -> None:
    def interrupted(status: object, seconds: float) -> None:
        raise KeyboardInterrupt

    class Backend:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> object:
            return SimpleNamespace(finished=interrupted, sized=print)

    configure(app="shop_bot", backends=[Backend()])
    with pytest.raises(KeyboardInterrupt), action_tracking("menu_handler"):
        pass


def test_what_was_bound_without_stack_is_never_kept() -> None:
    class Deep:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> object:
            raise RecursionError

    healthy = ListBackend()
    configure(app="shop_bot", backends=[Deep(), healthy])
    for _ in range(3):
        track()
    assert len(healthy.bound) == 3


def test_a_series_of_a_further_metric_is_bound_once() -> None:
    bound: list[tuple[str, ...]] = []

    class Backend(ListBackend):
        @hookimpl
        def llm_common_bind_metric(self, values: tuple[str, ...]) -> object:
            bound.append(values)
            return SimpleNamespace(record=print)

    configure(app="shop_bot", backends=[Backend()], extra_metrics="llm_tokens")
    for _ in range(3):
        use_tokens()
    assert bound == [("answer_llm_call", "input", "small", "dev", "shop_bot")]


def test_a_broken_log_handler_does_not_reach_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the disk is full")

    configure(app="shop_bot", backends=[FaultyBackend("finished")])
    monkeypatch.setattr(pipeline.logger, "log", broken)
    track()


@pytest.mark.parametrize(("recorder", "missing"), [(5, "finished"), (types.SimpleNamespace(ended=print), "sized")])
def test_what_is_no_recorder_is_named_and_left_out(
    recorder: object, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> object:
            return recorder

    healthy = ListBackend()
    configure(app="shop_bot", backends=[Wrong(), healthy])
    track()
    assert len(healthy.calls) == 2
    assert (
        f"llm_common_bind_action of the backend 'Wrong' returned {recorder!r}, which has no method {missing}(); "
        "a recorder has finished(status, seconds) and sized(amount)"
    ) in caplog.text


def test_a_backend_may_leave_an_action_unrecorded() -> None:
    class Choosy(ListBackend):
        @hookimpl
        def llm_common_bind_action(self, name: str) -> Any:
            return None if name == "noise_handler" else super().llm_common_bind_action(name)

    backend = Choosy()
    configure(app="shop_bot", backends=[backend])
    track("noise_handler")
    track("menu_handler")
    assert backend.calls == [("menu_handler", 2), ("menu_handler", "ok")]


def test_a_wrapper_plugin_filters_for_each_backend() -> None:
    class Filter:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str) -> Any:
            recorder = yield
            return None if name.startswith("noise") else recorder

    first, second = ListBackend("first"), ListBackend("second")
    configure(app="shop_bot", backends=[first, second], plugins=[Filter()])
    track("noise_handler")
    track("menu_handler")
    assert first.calls == second.calls == [("menu_handler", 2), ("menu_handler", "ok")]


def test_backends_that_compare_equal_are_still_two() -> None:
    class Equal(ListBackend):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]

    first, second, third = Equal(), Equal(), Equal()
    with override(backends=(first, second, third)) as active:
        track()
        assert list(active.backends) == ["list", "list'", "list''"]
    assert len(first.calls) == len(second.calls) == len(third.calls) == 2


def test_a_backend_need_not_have_a_name_and_its_properties_are_not_evaluated() -> None:
    class Lazy:
        @property
        def connection(self) -> object:
            raise OSError("not yet")

        @hookimpl
        @staticmethod
        def llm_common_bind_action(name: str) -> Any:
            return ListBackend().llm_common_bind_action(name)

    with override(backends=(Lazy(), Lazy()), strict=True) as active:
        track()
        assert list(active.backends) == ["Lazy", "Lazy'"]


def test_decorators_that_ran_before_follow_every_change_of_backends() -> None:
    @action_tracking_decorator("menu_handler")
    def menu() -> None: ...

    first, second = ListBackend("first"), ListBackend("second")
    configure(app="shop_bot", backends=[first])
    menu()
    configure(app="shop_bot", backends=[second])
    menu()
    assert len(first.calls) == len(second.calls) == 1


def test_an_action_under_way_ends_on_the_backends_that_it_started_on() -> None:
    first, second = ListBackend("first"), ListBackend("second")
    configure(app="shop_bot", backends=[first])
    with action_tracking("menu_handler") as tracker:
        configure(app="shop_bot", backends=[second])
        tracker.size(1)
    assert first.calls == [("menu_handler", 1), ("menu_handler", "ok")]
    assert second.calls == []


def test_configuring_again_counts_nothing_twice_and_loses_nothing(registry: CollectorRegistry) -> None:
    for _ in range(2):
        configure(app="shop_bot", env="prod", backends=[PrometheusBackend(registry)])
        track()
    configure(app="other_bot", env="prod", backends=[PrometheusBackend(registry)])
    track()
    values = parsed(render_metrics(registry=registry)[0].decode())
    labels = {"name": "menu_handler", "status": "ok", "env": "prod"}
    assert values[series("genapp_action_count_total", app="shop_bot", **labels)] == 2
    assert values[series("genapp_action_count_total", app="other_bot", **labels)] == 1


def test_configuring_from_another_thread_while_actions_run_loses_none(registry: CollectorRegistry) -> None:
    stop = threading.Event()
    backend = PrometheusBackend(registry)

    def reconfigure() -> None:
        while not stop.is_set():
            configure(app="shop_bot", backends=[backend])

    configure(app="shop_bot", backends=[backend])
    thread = threading.Thread(target=reconfigure)
    thread.start()
    for number in range(2000):
        track(f"{number % 7}_handler")
    stop.set()
    thread.join()
    values = parsed(render_metrics(registry=registry)[0].decode())
    assert sum(value for (name, _), value in values.items() if name == "genapp_action_count_total") == 2000


def test_configure_returns_the_settings_with_their_sources() -> None:
    settings = configure(app="shop_bot", backends="memory,noop")
    assert (settings.app, settings.env, settings.backends) == ("shop_bot", "dev", ("memory", "noop"))
    assert settings.source("app") == "the argument app= of configure()"


def test_every_argument_of_configure_is_a_setting() -> None:
    given = {
        "app": "shop_bot",
        "env": "prod",
        "backends": ("noop",),
        "plugins": (ListConfigured(),),
        "strict": True,
        "action_duration_buckets": (1.0, 2.0),
        "http_duration_buckets": (3.0, 4.0),
        "http_size_buckets": (5.0, 6.0),
        "first_item_buckets": (7.0, 8.0),
        "extra_metrics": ("llm_tokens",),
        "max_series": 9,
    }
    settings = configure(**given)  # type: ignore[arg-type]
    assert set(inspect.signature(configure).parameters) == set(given)
    for name, value in given.items():
        assert getattr(settings, name) == value
        assert settings.source(name) == f"the argument {name}= of configure()"


def test_the_application_is_called_as_its_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = "/srv/shop_bot.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert configure(backends=["noop"]).app == "shop_bot"


def test_when_configure_raises_what_was_in_force_stays() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    with pytest.raises(UnknownBackendError):
        configure(app="shop_bot", backends=["nonsense"])
    track()
    assert len(backend.calls) == 2


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no distribution bring a backend or plugin."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())


@pytest.mark.usefixtures("nothing_installed")
def test_an_unknown_backend_is_an_error_that_carries_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "promethues")
    with pytest.raises(UnknownBackendError) as caught:
        configure(app="shop_bot")
    assert str(caught.value) == (
        "unknown backend 'promethues', named by the environment variable LLM_COMMON_BACKENDS. "
        "Did you mean 'prometheus'? "
        "Available: memory, noop, prometheus. Can be installed: aioprometheus (pip install llm-common-aioprometheus), "
        "opentelemetry (pip install llm-common-opentelemetry). noop switches metrics off."
    )


@pytest.mark.usefixtures("nothing_installed")
def test_a_backend_or_plugin_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(UnknownBackendError) as caught:
        configure(app="shop_bot", backends=["aioprometheus"])
    assert str(caught.value) == (
        "unknown backend 'aioprometheus', named by the argument backends= of configure(). Available: memory, noop, "
        "prometheus. Install it with: pip install llm-common-aioprometheus. noop switches metrics off."
    )
    with pytest.raises(UnknownBackendError) as caught:
        configure(app="shop_bot", backends=["noop"], plugins=["opentelemetry"])
    assert str(caught.value).endswith("Available: none. Install it with: pip install llm-common-opentelemetry.")


def test_an_unknown_plugin_is_an_error_too() -> None:
    with pytest.raises(UnknownBackendError, match=r"unknown plugin 'sampler', named by the argument plugins="):
        configure(app="shop_bot", backends=["noop"], plugins=["sampler"])


def test_what_is_installed_already_is_offered_and_not_to_be_installed(distributions: "Distributions") -> None:
    for name in ("aioprometheus", "opentelemetry"):
        distributions.add(name, "")
    with pytest.raises(UnknownBackendError) as caught:
        configure(app="shop_bot", backends=["opentelemetri"])
    assert str(caught.value) == (
        "unknown backend 'opentelemetri', named by the argument backends= of configure(). "
        "Did you mean 'opentelemetry'? "
        "Available: aioprometheus, memory, noop, opentelemetry, prometheus. noop switches metrics off."
    )


def test_a_fault_at_first_use_is_logged_once_and_the_application_runs_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    for _ in range(3):
        track()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("llm_common: unknown backend 'nonsense', named by the environment variable")
    assert record.getMessage().endswith(" No metrics are recorded until this is mended.")
    assert record.exc_info is None
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    track()
    assert len(backend.calls) == 2


def test_an_unforeseen_fault_at_first_use_is_logged_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = plugins.load
    calls: list[str] = []

    def load(name: str, role: str, source: str) -> object:
        calls.append(name)
        if name == "prometheus":
            raise MemoryError("full")
        return original(name, role, source)

    monkeypatch.setattr(plugins, "load", load)
    track()
    (record,) = caplog.records
    assert record.exc_info
    assert calls == ["prometheus"]


def test_what_fails_while_the_interpreter_ends_is_told_to_nobody_and_switches_nothing_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    track()
    faulty = FaultyBackend("finished")
    configure(app="shop_bot", backends=[faulty])
    for _ in range(100):
        track()
    assert caplog.text == ""
    faulty.broken = ()
    track()
    assert faulty.calls[-1] == ("menu_handler", "ok")


def test_a_fault_at_first_use_raises_in_strict_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    monkeypatch.setenv("LLM_COMMON_STRICT", "1")
    for _ in range(2):
        with pytest.raises(UnknownBackendError):
            track()


def test_strictness_is_read_also_where_another_setting_cannot_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLM_COMMON_MAX_SERIES", "many")
    with dispatch.unconfigured():
        track()
    assert "LLM_COMMON_MAX_SERIES" in caplog.text
    monkeypatch.setenv("LLM_COMMON_STRICT", "1")
    with pytest.raises(ConfigurationError, match="LLM_COMMON_MAX_SERIES"):
        track()


def test_strictness_may_be_written_in_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.llm_common]\nstrict = true\nbackends = 'nonsense'\n")
    with pytest.raises(UnknownBackendError):
        track()


def test_a_process_begins_with_nothing_and_flushes_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    monkeypatch.setattr(dispatch, "state", State())
    backend = ListBackend()
    for _ in range(2):
        configure(app="shop_bot", backends=[backend])
    with action_tracking("menu_handler"):
        assert current_action() is NO_ACTION
    dispatch.make_trackers_findable()
    with action_tracking("menu_handler") as tracker:
        assert current_action() is tracker
    assert dispatch.backends_to_show() == [backend]
    (flush,) = at_exit
    flush()
    assert backend.shutdowns == [dispatch.SHUTDOWN_TIMEOUT]


def test_a_process_that_configures_nothing_flushes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    monkeypatch.setattr(dispatch, "state", State())
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")
    track()
    assert len(at_exit) == 1


def test_a_misuse_outside_of_any_action_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    configure(app="shop_bot", backends=[ListBackend()])
    dispatch.misused("nothing to be counted")
    assert [record.getMessage() for record in caplog.records] == ["nothing to be counted"]


def test_a_configuration_that_was_closed_begins_anew() -> None:
    beside, backend = Configuration(), ListBackend()
    for _ in range(2):
        with beside:
            configure(app="shop_bot", backends=[backend])
            track()
        beside.close()
    assert len(backend.calls) == 4
    assert backend.shutdowns == [dispatch.SHUTDOWN_TIMEOUT] * 2


def test_the_environment_decides_at_first_use_and_not_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")
    monkeypatch.setenv("LLM_COMMON_APP", "late_bot")
    track()
    (memory,) = dispatch.active().backends.values()
    assert isinstance(memory, MemoryBackend)
    (record,) = [one for one in memory.records if isinstance(one, EndedRecord)]
    assert (record.event.name, record.app) == ("menu_handler", "late_bot")


def test_a_working_directory_that_was_deleted_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    configure(app="shop_bot", backends=["noop"])
    monkeypatch.chdir(tmp_path)


class Distributions:
    """Makes entry points that importlib.metadata finds, without installing anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        monkeypatch.syspath_prepend(str(directory))
        self.monkeypatch = monkeypatch

    def add(self, name: str, source: str) -> None:
        (self.directory / f"{name}_module.py").write_text(source)
        info = self.directory / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[llm_common]\n{name} = {name}_module\n")
        self.monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
        importlib.invalidate_caches()


@pytest.fixture
def distributions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Distributions:
    return Distributions(monkeypatch, tmp_path)


SIMPLE = """
from llm_common import hookimpl
calls = []
class Recorder:
    def finished(self, status, seconds): calls.append(status)
    def sized(self, amount): calls.append(amount)
@hookimpl
def llm_common_bind_action(name): return Recorder()
"""


def test_only_entry_points_that_the_settings_name_are_loaded(distributions: Distributions) -> None:
    distributions.add("listing", SIMPLE)
    distributions.add("untouched", "raise RuntimeError('imported without need')")
    configure(app="shop_bot", backends=["listing"])
    track()
    assert sys.modules["listing_module"].calls == [2, "ok"]
    assert "untouched_module" not in sys.modules


def test_an_entry_point_may_create_its_backend_from_the_settings(distributions: Distributions) -> None:
    distributions.add(
        "creating",
        SIMPLE.replace("@hookimpl\ndef", "class Backend:\n  @hookimpl\n  def").replace("(name)", "(self, name)")
        + """
@hookimpl
def llm_common_create_backend(name, settings):
    calls.append((name, settings.app))
    return Backend() if settings.app == "shop_bot" else None
""",
    )
    configure(app="shop_bot", backends=["creating"])
    track()
    assert sys.modules["creating_module"].calls == [("creating", "shop_bot"), 2, "ok"]
    with pytest.raises(PluginError) as caught:
        configure(app="other_bot", backends=["creating"])
    assert str(caught.value) == (
        "the backend 'creating' (the argument backends= of configure()) can't be created: "
        f"llm_common_create_backend(name='creating') of {sys.modules['creating_module']!r} returned None; "
        "it must return the backend where name == 'creating'"
    )


def test_a_plugin_is_found_by_entry_point_too(distributions: Distributions) -> None:
    distributions.add(
        "muting",
        "from llm_common import hookimpl\n"
        "@hookimpl(wrapper=True)\n"
        "def llm_common_bind_action(name):\n"
        "    yield\n"
        "    return None\n",
    )
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], plugins="muting")
    track()
    assert backend.calls == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_there_at_all", ["'broken'", "broken_module", "broken 1.0", "ModuleNotFoundError", "Reinstall"]),
        ("raise SystemExit(2)", ["'broken'", "broken_module", "SystemExit: 2"]),
        ("raise BaseException('no')", ["'broken'", "broken_module", "BaseException: no"]),
        (
            SIMPLE.replace("bind_action", "bind_acton"),
            ["misspelt", "llm_common_bind_acton", "backend 'broken'", "llm_common_bind_action,"],
        ),
        (SIMPLE.replace("_action(name)", "_action(nome)"), ["backend 'broken'", "llm_common_bind_action", "nome"]),
        (
            "from llm_common import hookimpl\n@hookimpl\ndef llm_common_create_backend(name): return 1 / 0\n",
            ["'broken'", "can't be created", "ZeroDivisionError"],
        ),
        (
            (
                "from llm_common import hookimpl, errors\n@hookimpl\ndef llm_common_create_backend(name):\n"
                "    raise errors.PluginError('my own words')\n"
            ),
            ["my own words"],
        ),
        (
            "from llm_common import hookimpl\n@hookimpl\ndef llm_common_configured(settings): return 1 / 0\n",
            ["llm_common_configured of the backend 'broken' raised ZeroDivisionError"],
        ),
        (
            (
                "from llm_common import hookimpl, errors\n@hookimpl\ndef llm_common_configured(settings):\n"
                "    raise errors.PluginError('my own words')\n"
            ),
            ["my own words"],
        ),
    ],
)
def test_a_wrong_plugin_is_an_error_that_names_plugin_hook_and_fix(
    distributions: Distributions, source: str, words: list[str]
) -> None:
    distributions.add("broken", source)
    with pytest.raises(PluginError) as caught:
        configure(app="shop_bot", backends=["broken"])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "raise KeyboardInterrupt",
        (
            "from llm_common import hookimpl\n@hookimpl\ndef llm_common_create_backend(name):\n"
            "    raise KeyboardInterrupt\n"
        ),
        "from llm_common import hookimpl\n@hookimpl\ndef llm_common_configured():\n    raise KeyboardInterrupt\n",
    ],
)
def test_who_interrupts_the_import_of_a_plugin_is_obeyed(distributions: Distributions, source: str) -> None:
    distributions.add("broken", source)
    with pytest.raises(KeyboardInterrupt):
        configure(app="shop_bot", backends=["broken"])


def test_the_error_of_a_plugin_with_a_wrong_hook_names_the_plugin(distributions: Distributions) -> None:
    distributions.add("broken", SIMPLE.replace("bind_action", "bind_acton"))
    with pytest.raises(PluginError, match="llm_common_bind_acton of the plugin 'broken' is misspelt"):
        configure(app="shop_bot", backends=["noop"], plugins=["broken"])


def test_the_error_of_a_created_backend_with_a_wrong_hook_names_the_backend(distributions: Distributions) -> None:
    distributions.add(
        "broken",
        "from llm_common import hookimpl\n@hookimpl\ndef llm_common_create_backend(name): return Backend()\n"
        "class Backend:\n  @hookimpl\n  def llm_common_bind_acton(self): return None\n",
    )
    with pytest.raises(PluginError, match="llm_common_bind_acton of the backend 'broken' is misspelt"):
        configure(app="shop_bot", backends=["broken"])


def test_an_entry_point_without_a_distribution_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("broken", "not_there_at_all", "llm_common")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: (point,))
    with pytest.raises(
        PluginError, match="its entry point 'not_there_at_all' in an unnamed distribution failed with Modul"
    ):
        configure(app="shop_bot", backends=["broken"])


def test_one_distribution_may_be_backend_and_plugin_beside_others(distributions: Distributions) -> None:
    distributions.add(
        "both",
        SIMPLE.replace("@hookimpl\ndef", "class Backend:\n  @hookimpl\n  def").replace("(name)", "(self, name)")
        + "@hookimpl\ndef llm_common_create_backend(name): return Backend()\n",
    )
    others = [f"other{number}" for number in range(9)]
    for name in others:
        distributions.add(name, SIMPLE.replace("llm_common_bind_action(name)", "llm_common_configured()"))
    configure(app="shop_bot", backends=["both"], plugins=[*others, "both"], strict=True)
    track()
    assert sys.modules["both_module"].calls == [2, "ok"]


def test_an_entry_point_may_be_an_object_that_creates_itself(distributions: Distributions) -> None:
    distributions.add(
        "selfmade",
        SIMPLE + "import sys\n@hookimpl\ndef llm_common_create_backend(name): return sys.modules[__name__]\n",
    )
    configure(app="shop_bot", backends=["selfmade"], strict=True)
    track()
    assert sys.modules["selfmade_module"].calls == [2, "ok"]


def test_three_lines_make_a_backend() -> None:
    ended: list[tuple[str, Status]] = []

    class Three:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> object:
            return SimpleNamespace(finished=lambda status, seconds: ended.append((name, status)), sized=print)

    configure(app="shop_bot", backends=[Three()], strict=True)
    with action_tracking("menu_handler"):
        pass
    assert ended == [("menu_handler", Status.OK)]


@pytest.mark.parametrize("hook", ["llm_common_bind_acton", "llm_common_bind_action"])
def test_the_error_of_a_wrong_hook_says_what_is_meant(hook: str) -> None:
    def implementation(self: object, nome: str, *, more: int = 1) -> None: ...

    backend = type("Wrong", (), {hook: hookimpl(implementation), "llm_common_shutdown": hookimpl(lambda self: None)})()
    with pytest.raises(PluginError) as caught:
        configure(app="shop_bot", backends=[backend])
    assert f"{hook} of the backend 'Wrong'" in str(caught.value)
    if hook.endswith("acton"):
        meant = (
            f"is misspelt: there is no hook {hook}; did you mean llm_common_bind_action? The hooks are: llm_common_bind"
        )
    else:
        meant = "there is no argument nome; did you mean name? The arguments are: bind, exemplar, name, settings"
    assert meant in str(caught.value)


def test_the_error_of_a_hook_like_no_other_says_which_there_are() -> None:
    backend = type("Wrong", (), {"qwertyuiop": hookimpl(lambda self: None)})()
    with pytest.raises(PluginError, match="there is no hook qwertyuiop; The hooks are: llm_common_bind_action, llm_"):
        configure(app="shop_bot", backends=[backend])


def test_a_hook_may_have_another_name_and_its_object_names_that_it_lacks() -> None:
    class Renaming(ListBackend):
        def __dir__(self) -> list[str]:
            return [*super().__dir__(), "llm_common_lacking"]

        @hookimpl(specname="llm_common_shutdown")
        def stop(self, timeout: float) -> None:
            self.shutdowns.append(-timeout)

    backend = Renaming()
    configure(app="shop_bot", backends=[backend])
    shutdown(3)
    assert sorted(backend.shutdowns) == [-3, 3]


def test_the_hooks_of_classes_and_static_methods_count_too() -> None:
    ended: list[Status] = []

    class Three:
        @classmethod
        @hookimpl
        def llm_common_bind_action(cls, name: str) -> object:
            return SimpleNamespace(finished=lambda status, seconds: ended.append(status), sized=print)

        @hookimpl
        @staticmethod
        def llm_common_configured(settings: object) -> None:
            ended.clear()

    configure(app="shop_bot", backends=[Three()], strict=True)
    with action_tracking("menu_handler"):
        pass
    assert ended == [Status.OK]


def test_a_forgotten_mark_above_a_class_method_is_an_error_too() -> None:
    class Unmarked:
        @classmethod
        def llm_common_bind_action(cls, name: str) -> None: ...

    with pytest.raises(PluginError, match="llm_common_bind_action of the backend 'Unmarked' isn't marked"):
        configure(app="shop_bot", backends=[Unmarked()])


def test_a_wrapper_that_never_yields_is_an_error() -> None:
    class NoGenerator:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str) -> None: ...

    with pytest.raises(PluginError, match="has a wrong hook"):
        configure(app="shop_bot", backends=[ListBackend()], plugins=[NoGenerator()])


def test_a_hook_of_another_version_may_be_optional() -> None:
    class Ahead(ListBackend):
        @hookimpl(optionalhook=True)
        def llm_common_of_tomorrow(self) -> None: ...

        @hookimpl
        def llm_common_configured(self, settings: object, *, more: int = 1) -> None: ...

    backend = Ahead()
    configure(app="shop_bot", backends=[backend])
    track()
    assert backend.calls


def test_a_renamed_action_has_its_new_name_in_events_and_in_other_wrappers() -> None:
    class Rename:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str, bind: Callable[[str], object]) -> Generator[None, Any, object]:
            recorder = yield
            if name == "dropped":
                return None
            return bind("new") if name == "old" else recorder

    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], plugins=[Rename()], strict=True)
    for name in ("old", "new", "dropped"):
        with action_tracking(name) as tracker:
            tracker.size(1)
    assert [event.name for event in memory.events] == ["new", "new"]
    assert [record.name for record in memory.records if isinstance(record, SizedRecord)] == ["new", "new"]


def test_a_wrapper_that_renames_without_end_is_an_error_with_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    class Prefix:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str, bind: Any) -> Any:
            yield
            return bind(f"shop_{name}")

    configure(app="shop_bot", backends=[ListBackend()], plugins=[Prefix()])
    with action_tracking("menu_handler"):
        pass
    message = caplog.records[0].getMessage()
    assert "renames without end: 'menu_handler' as 'shop_menu_handler' as 'shop_shop_menu_handler' and so on" in message
    assert "and so on; call bind(other) only for what isn't renamed yet; the application" in message


@pytest.mark.parametrize("further", [0, 1])
def test_an_action_may_be_renamed_so_often_and_no_oftener(further: int) -> None:
    class Count:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str, bind: Any) -> Any:
            recorder = yield
            number = int(name.partition("_")[0])
            return bind(f"{number - 1}_task") if number else recorder

    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], plugins=[Count()])
    track(f"{pipeline.MOST_RENAMES - 1 + further}_task")
    assert len(backend.calls) == (0 if further else 2)


def test_a_classifier_that_fails_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong:
        @hookimpl
        def llm_common_classify_exception(self) -> Status:
            raise LookupError("no such class")

    configure(app="shop_bot", backends=[ListBackend()], plugins=[Wrong()])
    with suppress(ValueError), action_tracking("menu_handler"):
        raise ValueError
    message = caplog.records[0].getMessage()
    assert message.startswith("Wrong: llm_common_classify_exception raised")
    assert message.endswith("; the application is not affected, the default status counts")


def test_who_raised_is_a_plugin_where_the_traceback_does_not_tell(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        @hookimpl
        def llm_common_classify_exception(self) -> Any:
            return "no status"

    configure(app="shop_bot", backends=[ListBackend()], plugins=[Odd()])
    with suppress(ValueError), action_tracking("menu_handler"):
        raise ValueError
    assert caplog.records[0].getMessage().startswith("a plugin: llm_common_classify_exception raised ValueError")


def test_a_shutdown_takes_a_number_of_seconds() -> None:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend])
    for wrong in (-0.5, float("nan")):
        with pytest.raises(ValueError, match="accepted: a number of seconds, from 0 on"):
            shutdown(wrong)
    with pytest.raises(TypeError):
        shutdown(None)  # type: ignore[arg-type]
    assert backend.shutdowns == []


def test_an_http_series_can_be_bound_as_another() -> None:
    class Merge:
        @hookimpl(wrapper=True)
        def llm_common_bind_http(
            self, series: HttpSeries, bind: Callable[[HttpSeries], object]
        ) -> Generator[None, Any, object]:
            recorder = yield
            return recorder if series.app_type == "llm" else bind(series._replace(app_type="llm"))

    memory = MemoryBackend()
    configure(app="shop_bot", backends=[memory], plugins=[Merge()], strict=True)
    http_tracking("triton", "/v1/models", "GET", 0, 200, 0.01, 0)
    assert [exchange.app_type for exchange in memory.exchanges] == ["llm"]


def test_a_class_in_place_of_an_instance_is_an_error_with_the_fix() -> None:
    with pytest.raises(PluginError, match=r"is a class; give an instance of it: ListBackend\(\)"):
        configure(app="shop_bot", backends=[ListBackend])


@pytest.mark.parametrize("backend", [None, object(), 5])
def test_an_object_without_hooks_is_an_error_and_no_silence(backend: object) -> None:
    with pytest.raises(PluginError) as caught:
        configure(app="shop_bot", backends=[backend])
    backend_has = "a backend has at least a method llm_common_bind_action(self, name), marked with @hookimpl"
    assert f"is {backend!r}, which implements no hook; {backend_has}" in str(caught.value)


def test_a_forgotten_mark_above_a_hook_is_an_error() -> None:
    class Unmarked:
        def llm_common_bind_action(self, name: str) -> None: ...

    with pytest.raises(PluginError, match="llm_common_bind_action of the backend 'Unmarked' isn't marked"):
        configure(app="shop_bot", backends=[Unmarked()])


def test_all_errors_share_one_base() -> None:
    assert issubclass(ConfigurationError, LLMCommonError)
    assert issubclass(ConfigurationError, ValueError)


class ListConfigured:
    """A plugin that is told of each configuration."""

    def __init__(self) -> None:
        self.configured: list[object] = []

    @hookimpl
    def llm_common_configured(self, settings: object) -> None:
        self.configured.append(settings)


def test_a_plugin_is_not_configured_again_by_a_shutdown_at_once() -> None:
    backend, plugin = ListBackend(), ListConfigured()
    configure(app="shop_bot", backends=[backend], plugins=[plugin])
    shutdown(0)
    assert len(plugin.configured) == 1
    assert backend.shutdowns == [0]


def test_after_a_shutdown_strictness_stays_what_it_was() -> None:
    configure(app="shop_bot", backends=[ListBackend()], strict=True)
    shutdown()
    with pytest.raises(TrackingError, match="is no size"), action_tracking("menu_handler") as tracker:
        tracker.size(-1)


def test_an_override_nests_and_restores() -> None:
    base, outer, inner = ListBackend("base"), ListBackend("outer"), ListBackend("inner")
    configure(app="shop_bot", backends=[base])
    track("1")
    with override(backends=(outer,)):
        track("2")
        with override(backends=(inner,)):
            track("3")
        track("4")
    track("5")
    assert [backend.bound for backend in (base, outer, inner)] == [["1", "5"], ["2", "4"], ["3"]]
    assert [len(backend.shutdowns) for backend in (base, outer, inner)] == [0, 1, 1]


def test_an_override_needs_no_configuration_beneath_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    with override(strict=True) as active:
        track()
        assert list(active.backends) == ["noop"]


def test_an_override_may_end_before_one_inside_it() -> None:
    outer, inner = ListBackend("outer"), ListBackend("inner")
    first, second = override(backends=(outer,)), override(backends=(inner,))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    track("1")
    second.__exit__(None, None, None)
    assert (outer.bound, inner.bound) == ([], ["1"])


def test_configure_inside_an_override_changes_the_labels_and_not_where_it_goes(registry: CollectorRegistry) -> None:
    with override(backends=("memory",)):
        track()
        configure(app="shop_bot", env="prod", backends=[PrometheusBackend(registry)])
        track()
        (memory,) = dispatch.active().backends.values()
    assert isinstance(memory, MemoryBackend)
    ended = [one for one in memory.records if isinstance(one, EndedRecord)]
    assert [one.env for one in ended] == ["dev", "prod"]
    assert ended[1].app == "shop_bot"
    assert parsed(render_metrics(registry=registry)[0].decode()) == {}
    track()
    assert parsed(render_metrics(registry=registry)[0].decode())


def test_an_override_of_strictness_alone_follows_the_backends_of_the_configuration() -> None:
    first, second = ListBackend("first"), ListBackend("second")
    configure(app="shop_bot", backends=[first])
    with override(strict=True) as active:
        track("1")
        configure(app="shop_bot", backends=[second])
        track("2")
    assert (first.bound, second.bound, active.settings.strict) == (["1"], ["2"], True)


def test_an_override_that_fails_leaves_everything_as_it_was() -> None:
    base = ListBackend()
    configure(app="shop_bot", backends=[base])
    with pytest.raises(UnknownBackendError), override(backends=("nonsense",)):
        pass
    track()
    assert len(base.calls) == 2


def test_a_backend_that_stays_in_use_is_not_shut_down() -> None:
    kept, dropped = ListBackend("kept"), ListBackend("dropped")
    configure(app="shop_bot", backends=[kept, dropped])
    configure(app="shop_bot", backends=[kept])
    assert (kept.shutdowns, dropped.shutdowns) == ([], [dispatch.SHUTDOWN_TIMEOUT])


def test_after_shutdown_nothing_is_recorded_until_configured_again() -> None:
    backend = ListBackend()
    shutdown()
    configure(app="shop_bot", backends=[backend])
    shutdown(timeout=1.5)
    track()
    assert (backend.calls, backend.shutdowns) == ([], [1.5])
    configure(app="shop_bot", backends=[backend])
    track()
    assert len(backend.calls) == 2


def test_a_hook_that_configures_while_an_action_is_bound_is_obeyed() -> None:
    second = ListBackend("second")

    class Impatient(ListBackend):
        @hookimpl
        def llm_common_bind_action(self, name: str) -> Any:
            configure(app="shop_bot", backends=[second])
            return super().llm_common_bind_action(name)

    configure(app="shop_bot", backends=[Impatient("first")])
    track()
    track()
    assert second.calls == [("menu_handler", 2), ("menu_handler", "ok")]


def test_a_hook_that_configures_while_an_http_series_is_bound_is_obeyed() -> None:
    later = ListBackend("later")

    class Configuring(ListBackend):
        @hookimpl
        def llm_common_bind_http(self, series: HttpSeries) -> Any:
            configure(app="shop_bot", backends=[later])
            return super().llm_common_bind_http(series)

    configure(app="shop_bot", backends=[Configuring()])
    for _ in range(2):
        http_tracking("web", "order", "GET", 1, 200, 0.1, 1)
    assert len(later.http) == 1


def test_a_configuration_that_fails_leaves_the_labels_of_a_shared_backend_alone(registry: CollectorRegistry) -> None:
    class Failing:
        @hookimpl
        def llm_common_configured(self, settings: Any) -> None:
            raise OSError("no")

    backend = PrometheusBackend(registry)
    configure(app="right_bot", backends=[backend])
    with pytest.raises(PluginError):
        configure(app="wrong_bot", backends=[backend], plugins=[Failing()])
    with override(app="other_bot"):
        track()
    track()
    values = parsed(render_metrics(registry=registry)[0].decode())
    apps = {dict(labels)["app"]: value for (name, labels), value in values.items() if "count_total" in name}
    assert apps == {"right_bot": 1, "other_bot": 1}


def test_two_backends_on_one_registry_count_once(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry), PrometheusBackend(registry)])
    track()
    values = parsed(render_metrics(registry=registry)[0].decode())
    assert [value for (name, _), value in values.items() if "count_total" in name] == [1]


def test_an_object_given_twice_or_in_the_wrong_place_is_an_error() -> None:
    backend = ListBackend()
    with pytest.raises(PluginError, match="is given twice"):
        configure(app="shop_bot", backends=["noop", backend], plugins=[backend])
    with pytest.raises(PluginError, match=r"so it is a backend: give it in backends=, not in plugins="):
        configure(app="shop_bot", backends=["noop"], plugins=[ListBackend()])


def test_a_fault_that_cannot_be_shown_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Broken(FaultyBackend):
        def fail(self, operation: str) -> None:
            raise Unshowable

    healthy = ListBackend()
    configure(app="shop_bot", backends=[Broken(), healthy])
    track()
    assert len(healthy.calls) == 2
    assert "Unshowable, which can't be shown" in caplog.text


class Delegating:
    """What a filter may put around a recorder: it has all attributes of the one inside, and its own ``finished``."""

    def __init__(self, inner: Any, calls: list[str]) -> None:
        self.inner = inner
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def finished(self, status: Any, seconds: float) -> None:
        self.calls.append(str(status))
        self.inner.finished(status, seconds)


def test_a_recorder_around_another_has_its_own_methods_called(registry: CollectorRegistry) -> None:
    calls: list[str] = []

    class Filter:
        @hookimpl(wrapper=True)
        def llm_common_bind_action(self, name: str) -> Any:
            return Delegating((yield), calls)

    configure(app="shop_bot", backends=[PrometheusBackend(registry)], plugins=[Filter()], strict=True)
    track()
    assert calls == ["ok"]
    assert b"genapp_action_count_total{" in render_metrics(registry=registry)[0]


def test_a_recorder_with_an_unrelated_fold_is_an_ordinary_one() -> None:
    class Folding:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def fold(self) -> None: ...

        def finished(self, status: Any, seconds: float) -> None:
            self.calls.append(status)

        def sized(self, amount: float) -> None:
            self.calls.append(amount)

    recorder = Folding()

    class Backend:
        @hookimpl
        def llm_common_bind_action(self, name: str) -> Folding:
            return recorder

    configure(app="shop_bot", backends=[Backend()], strict=True)
    track()
    assert recorder.calls == [2, "ok"]


def test_shutting_down_twice_still_shows_what_was_recorded(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    track()
    for _ in range(2):
        shutdown()
        assert b"menu_handler" in render_metrics()[0]


def finishes(function: Callable[[], object]) -> None:
    """Run ``function`` in a thread and fail where it hangs."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"


def elsewhere(function: Callable[[], object]) -> None:
    """Run ``function`` in another thread and wait for it, as a plugin with a worker thread does."""
    worker = threading.Thread(target=function, daemon=True)
    worker.start()
    worker.join(30)
    assert not worker.is_alive(), "the worker hangs"


def test_a_hook_may_wait_for_another_thread_that_tracks() -> None:
    class Waiting(ListBackend):
        @hookimpl
        def llm_common_bind_action(self, name: str) -> Any:
            if name != "export_task":
                elsewhere(lambda: track("export_task"))
            return super().llm_common_bind_action(name)

        @hookimpl
        def llm_common_shutdown(self, timeout: float) -> None:
            elsewhere(lambda: track("flush_task"))

    backend = Waiting()
    configure(app="shop_bot", backends=[backend])

    def both() -> None:
        track()
        shutdown()

    finishes(both)
    assert backend.calls.count(("menu_handler", "ok")) == 1


class TrackingHandler(logging.Handler):
    """A log handler that tracks, in its own lock, what it does."""

    def emit(self, record: logging.LogRecord) -> None:
        elsewhere(lambda: track("log_task"))
        track("emit_task")


@pytest.fixture
def tracking_handler() -> Iterator[None]:
    handler = TrackingHandler()
    logging.getLogger("llm_common").addHandler(handler)
    yield
    logging.getLogger("llm_common").removeHandler(handler)


@pytest.mark.usefixtures("tracking_handler")
def test_a_log_handler_may_track_and_wait_for_others_that_do() -> None:
    healthy = ListBackend()
    configure(app="shop_bot", backends=[FaultyBackend("bind", "finished"), healthy])
    finishes(track)
    assert ("menu_handler", "ok") in healthy.calls


@pytest.mark.usefixtures("tracking_handler")
def test_a_log_handler_that_tracks_gets_the_first_error_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    finishes(track)


def test_a_log_handler_that_raises_at_first_use_does_not_reach_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setenv("LLM_COMMON_BACKENDS", "nonsense")
    monkeypatch.setattr(dispatch.logger, "error", broken)
    track()
    track()


def test_a_configuration_made_during_the_first_use_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ListBackend()
    original = plugins.load

    def load(name: str, role: str, source: str) -> object:
        configure(app="shop_bot", backends=[backend])
        return original(name, role, source)

    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")
    monkeypatch.setattr(plugins, "load", load)
    track()
    assert len(backend.calls) == 2


@pytest.mark.parametrize("same", [False, True])
def test_what_the_first_use_made_in_vain_is_shut_down_unless_it_is_in_force(
    monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    chosen = ListBackend("chosen")
    made = chosen if same else ListBackend("made")

    def load(name: str, role: str, source: str) -> object:
        configure(app="shop_bot", backends=[chosen])
        return made

    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")
    monkeypatch.setattr(plugins, "load", load)
    track()
    assert made.shutdowns == ([] if same else [dispatch.SHUTDOWN_TIMEOUT])


def test_a_plugin_that_fails_under_two_overrides_fails_in_configure_and_changes_nothing() -> None:
    class Moody:
        failing = False

        @hookimpl
        def llm_common_configured(self, settings: Any) -> None:
            if self.failing:
                raise OSError("no")

    moody, backend = Moody(), ListBackend()
    configure(app="shop_bot", backends=[backend])
    with override(plugins=(moody,)), override(plugins=()):
        moody.failing = True
        with pytest.raises(PluginError, match=r"llm_common_configured of the plugin 'Moody' raised OSError"):
            configure(app="shop_bot", backends=["noop"])
        track("1")
    track("2")
    assert backend.bound == ["1", "2"]


def test_a_plugin_that_tracks_while_it_is_loaded_is_loaded_once(distributions: Distributions) -> None:
    distributions.add(
        "eager",
        SIMPLE
        + """
from llm_common import action_tracking
@hookimpl
def llm_common_create_backend(name, settings):
    calls.append(name)
    with action_tracking("load_task"):
        pass
    import sys
    return sys.modules[__name__]
""",
    )
    distributions.monkeypatch.setenv("LLM_COMMON_BACKENDS", "eager")
    track()
    assert sys.modules["eager_module"].calls == ["eager", 2, "ok"]


def run_in_threads(number: int, function: Callable[[], None]) -> None:
    threads = [threading.Thread(target=function) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_another_thread_that_tracks_during_the_first_use_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = plugins.load
    loading: list[str] = []

    def load(name: str, role: str, source: str) -> object:
        loading.append(name)
        if len(loading) == 1:
            run_in_threads(1, track)
        return original(name, role, source)

    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")
    monkeypatch.setattr(plugins, "load", load)
    track()
    (memory,) = dispatch.active().backends.values()
    assert isinstance(memory, MemoryBackend)
    assert len(memory.events) == 2


def test_the_first_use_from_many_threads_configures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "memory")

    def track_often() -> None:
        for _ in range(50):
            track()

    run_in_threads(8, track_often)
    (memory,) = dispatch.active().backends.values()
    assert isinstance(memory, MemoryBackend)
    assert len(memory.events) == 400


def test_a_child_process_can_configure_though_the_parent_held_the_lock(registry: CollectorRegistry) -> None:
    configure(app="shop_bot", backends=[PrometheusBackend(registry)])
    track()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with dispatch.state.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child, which ends without reporting
        status = 1
        try:
            configure(app="child_bot", backends=[PrometheusBackend(registry)])
            track()
            status = 0 if b'app="child_bot"' in render_metrics(registry=registry)[0] else 2
        finally:
            os._exit(status)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gc.collect()
