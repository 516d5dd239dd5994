"""What a signal handler raises, such as a time limit, reaches the application wherever it interrupts the package."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, RLock, Thread
from types import FrameType
from typing import Any

import pytest

from llm_common import action_tracking, configure, http_tracking, plugins
from llm_common.backends import folding
from llm_common.testing import record_metrics
from recording import FaultyBackend, ListBackend


class TimeLimitExceededError(Exception):
    """What the handlers here raise."""


def limit(number: int, frame: FrameType | None) -> None:
    raise TimeLimitExceededError


class Limiter:
    def limit(self, number: int, frame: FrameType | None) -> None:
        limit(number, frame)


@contextmanager
def handled_by(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class Interrupted(FaultyBackend):
    """A signal comes in the operations named in ``broken``."""

    def fail(self, operation: str) -> None:
        if operation in self.broken:
            signal.raise_signal(signal.SIGUSR1)


def track() -> None:
    with action_tracking("menu_handler") as tracker:
        tracker.size(1)
    http_tracking("web", "order", "GET", 1, 200, 0.1, 1)


class CallableLimiter:
    def __call__(self, number: int, frame: FrameType | None) -> None:
        limit(number, frame)


def limit_of(seconds: float, number: int, frame: FrameType | None) -> None:
    limit(number, frame)


HANDLERS = [limit, Limiter().limit, partial(limit_of, 5.0), CallableLimiter()]


@pytest.mark.parametrize("handler", HANDLERS, ids=["function", "method", "partial", "object"])
@pytest.mark.parametrize("operation", ["bind", "sized", "finished", "bind_http", "http"])
def test_an_exception_of_a_handler_is_no_fault_of_the_backend_that_it_interrupts(
    operation: str, handler: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(app="shop_bot", backends=[Interrupted(operation)])
    with handled_by(handler), pytest.raises(TimeLimitExceededError):
        track()
    assert caplog.text == ""


def test_an_exception_that_passed_through_no_handler_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    configure(app="shop_bot", backends=[FaultyBackend("finished")])
    with handled_by(limit):
        track()
    assert "finished raised OSError" in caplog.text


def test_an_exception_of_a_handler_is_no_wrong_size() -> None:
    class Slow:
        def __float__(self) -> float:
            signal.raise_signal(signal.SIGUSR1)
            return 1.0

    def give_size() -> None:
        with action_tracking("menu_handler") as tracker:
            tracker.size(Slow())  # type: ignore[arg-type]

    with record_metrics() as recorded, handled_by(limit), pytest.raises(TimeLimitExceededError):
        give_size()
    recorded.assert_action("menu_handler", status="error")


def test_an_exception_of_a_handler_during_the_first_use_does_not_switch_metrics_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = ListBackend()

    interruptions = [True]

    def interrupted_once(name: str, role: str, source: str) -> object:
        if interruptions:
            interruptions.pop()
            signal.raise_signal(signal.SIGUSR1)
        return backend

    monkeypatch.setattr(plugins, "load", interrupted_once)
    with handled_by(limit), pytest.raises(TimeLimitExceededError):
        track()
    track()
    assert backend.calls == [("menu_handler", 1), ("menu_handler", "ok")]
    assert caplog.text == ""


def test_an_exception_of_a_handler_in_configure_stays_what_it_is() -> None:
    class Slow(ListBackend):
        def __getattribute__(self, name: str) -> Any:
            if name == "llm_common_shutdown":
                signal.raise_signal(signal.SIGUSR1)
            return super().__getattribute__(name)

    with handled_by(limit), pytest.raises(TimeLimitExceededError):
        configure(app="shop_bot", backends=[Slow()])


def test_a_scrape_that_a_handler_ends_leaves_the_next_one_free_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lock:
        """One that a signal comes right behind, before anything else happens."""

        def __init__(self) -> None:
            self.lock = RLock()
            self.release = self.lock.release

        def acquire(self, timeout: float) -> bool:
            taken = self.lock.acquire(timeout=timeout)
            signal.raise_signal(signal.SIGUSR1)
            return taken

    lock, begun = Lock(), Event()
    monkeypatch.setattr(folding, "_scraping", lock)
    with handled_by(limit), pytest.raises(TimeLimitExceededError), folding.alone(str(tmp_path)):
        pass
    monkeypatch.setattr(folding, "_scraping", lock.lock)

    def scrape() -> None:
        with folding.alone(str(tmp_path)):
            begun.set()

    thread = Thread(target=scrape)
    thread.start()
    thread.join(60)
    assert begun.is_set()


def test_an_exception_of_a_handler_while_a_plugin_is_registered_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pluggy.PluginManager.register", lambda *_: signal.raise_signal(signal.SIGUSR1))
    with handled_by(limit), pytest.raises(TimeLimitExceededError):
        configure(app="shop_bot", backends=[ListBackend()])
