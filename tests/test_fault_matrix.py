"""Every way to fail, at every point where a backend is called: the application never notices.

The points are read from the hooks and from the protocols of recorders, so a new one joins by itself; where the scenario
below never reaches it, its cases fail and say so.
"""

import asyncio
import functools
import inspect
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Protocol, get_args, get_type_hints

import pytest
from prometheus_client import CollectorRegistry

from llm_common import (
    action_tracking,
    action_tracking_decorator,
    configure,
    contract,
    hookimpl,
    hookspecs,
    http_tracking,
    plugins,
    shutdown,
)
from llm_common.backends.memory import MemoryBackend, MetricRecord
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.catalog import ACTION_FIRST_ITEM, BACKEND_ERRORS, LLM_TOKENS
from llm_common.contract import FOLD_AT
from llm_common.errors import LLMCommonError
from llm_common.exposition import respond
from llm_common.tracker import NO_ACTION, ActionTracker

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "llm_common_spec")}

PROTOCOLS = [one for one in vars(contract).values() if getattr(one, "_is_protocol", False) and one is not Protocol]
"""The shapes that recorders have."""


def methods(protocol: type) -> list[str]:
    return [name for name, value in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]


def binder(protocol: type) -> str | None:
    """Return the hook by which a backend gives recorders of that shape."""
    for name, hook in HOOKS.items():
        accepted = get_args(
            get_type_hints(hook, vars(hookspecs) | {"Settings": object, "Callable": Callable})["return"]
        )
        if any(one in accepted for one in protocol.__mro__ if one is not object):
            return name
    return None


BINDERS = {protocol: binder(protocol) for protocol in PROTOCOLS}
ACTIONS = [one for one in PROTOCOLS if BINDERS[one] == "llm_common_bind_action"]
OTHERS = {hook: one for one, hook in BINDERS.items() if one not in ACTIONS}

KINDS: dict[str, type | Callable[[], Any]] = {
    **{one.__name__: one for one in ACTIONS},
    "prometheus": lambda: PrometheusBackend(CollectorRegistry()),
    "memory": MemoryBackend,
}
"""What backends record with: made-up recorders of each shape for actions, and those of the package's own backends."""


def points(kind: str) -> list[str]:
    """Return where a backend of that kind is called: its hooks, its recorders' methods, and what else it gives away."""
    shape = KINDS[kind]
    if kind == "prometheus":
        shape = contract.SamplingActionRecorder
    elif kind == "memory":
        shape = contract.ActionEventRecorder
    shapes = {"llm_common_bind_action": shape, **OTHERS}
    recording = [f"{hook}().{method}" for hook, one in shapes.items() for method in methods(one)]
    source = [] if kind == "memory" else ["llm_common_exemplar_source()"]  # for which that has no use
    return [*HOOKS, *recording, *source, "collect"]


class Outage(BaseException):
    """What no backend should raise."""


def fail(kind: type[BaseException]) -> Callable[..., object]:
    def raising(healthy: Callable[[], object], calls: int) -> object:
        raise kind("broken")

    return raising


def give(value: object) -> Callable[..., object]:
    def giving(healthy: Callable[[], object], calls: int) -> object:
        healthy()
        return value

    return giving


def hang(healthy: Callable[[], object], calls: int) -> object:
    if calls == 1:
        time.sleep(0.05)
    return healthy()


def recurse(name: str) -> Callable[..., object]:
    def recursing(healthy: Callable[[], object], calls: int) -> object:
        with action_tracking(name):
            pass
        return healthy()

    return recursing


RAISING = {
    one.__name__: fail(one)
    for one in (OSError, MemoryError, RecursionError, Outage, asyncio.CancelledError, GeneratorExit)
}
WAYS: dict[str, Callable[..., object]] = {
    **RAISING,
    "gives None": give(None),
    "gives a number": give(5),
    "gives an object": give(object()),
    "gives a list of wrong things": give([5]),
    "hangs": hang,
    "tracks the same": recurse("menu_handler"),
    "tracks another": recurse("export_task"),
}
SETTINGS = ("alone", "first", "last")
"""Where the backend stands among others."""

SAMPLING = set(methods(contract.SamplingActionRecorder)) - set(methods(contract.ActionRecorder))
"""What is called only where it stands alone."""


def settings_of(point: str) -> tuple[str, ...]:
    return SETTINGS[:1] if point.rpartition(".")[2] in SAMPLING else SETTINGS


class Faulty:
    """A backend with every hook, and with recorders, that fails at one point."""

    def __init__(self, kind: str, point: str, way: Callable[..., object]) -> None:
        self.name = "faulty"
        self.point = point
        self.way = way
        self.calls: Counter[str] = Counter()
        self.unasked = 0
        """How many of the failing calls were made to count a fault."""
        shape = KINDS[kind]
        self.inner = None if shape in ACTIONS else shape()
        self.shapes = {"llm_common_bind_action": shape, **OTHERS}
        for name, hook in HOOKS.items():
            setattr(self, name, self.hook(hook))

    def act(self, point: str, healthy: Callable[[], object], unasked: bool = False) -> Any:
        self.calls[point] += 1
        self.unasked += unasked and point == self.point
        return self.way(healthy, self.calls[point]) if point == self.point else healthy()

    def hook(self, spec: Callable[..., object]) -> Callable[..., object]:
        @hookimpl
        @functools.wraps(spec)  # by which pluggy finds the arguments
        def implementation(*args: object) -> object:
            given = dict(zip(inspect.signature(spec).parameters, args, strict=True))
            unasked = given.get("metric") is BACKEND_ERRORS
            return self.act(spec.__name__, lambda: self.healthy(spec.__name__, given, unasked), unasked)

        return implementation

    def healthy(self, hook: str, given: dict[str, Any], unasked: bool) -> object:
        """Return what the hook returns where nothing fails."""
        if hook == "llm_common_create_backend":
            return self
        if hook == "llm_common_exemplar_source":
            source = f"{hook}()"
            return (lambda: self.act(source, lambda: {"trace_id": "1"})) if self.point == source else None
        inner = getattr(self.inner, hook, None)
        if inner is not None:
            result = inner(**{name: given[name] for name in inspect.signature(inner).parameters})
            return self.recorder(hook, result, unasked) if hook in self.shapes else result
        if self.inner is None and hook in self.shapes:
            return self.recorder(hook, self.recorder_of(self.shapes[hook], given.get("exemplar")), unasked)
        return None

    def recorder_of(self, shape: Any, exemplar: Callable[[], object] | None) -> object:
        """Return a recorder that does nothing but ask for an exemplar."""

        def record(*_: object) -> None:
            if exemplar:
                exemplar()

        return SimpleNamespace(
            **{name: [] for name in inspect.get_annotations(shape)}, **dict.fromkeys(methods(shape), record)
        )

    def recorder(self, hook: str, inner: Any, unasked: bool) -> object:
        """Return a recorder of the same shape as ``inner`` that may fail."""

        def method(name: str) -> Callable[..., object]:
            return lambda _, *args: self.act(f"{hook}().{name}", lambda: getattr(inner, name)(*args), unasked)

        names = {name for one in PROTOCOLS for name in methods(one) if hasattr(inner, name)}
        made: Any = type("Recorder", (), {name: method(name) for name in names})()
        for name in inspect.get_annotations(contract.SamplingActionRecorder):
            if hasattr(inner, name):
                setattr(made, name, getattr(inner, name))
        return made

    def collect(self) -> Any:
        return self.act("collect", list)


class Leaving(BaseException):
    """Leaves a block without being an error."""


RAISED = (KeyError("mine"), Leaving("mine"))


def block(track: Callable[[str], AbstractContextManager[ActionTracker]], exception: BaseException | None) -> str:
    with track("menu_handler") as tracker:
        tracker.size(2)
        tracker.tokens("small-1", input=3)
        tracker.first_item()
        if exception is not None:
            raise exception
        return "the menu"


def untracked(name: str) -> AbstractContextManager[ActionTracker]:
    return nullcontext(NO_ACTION)


def outcome(function: Callable[..., object], *args: object) -> tuple[object, ...]:
    """Return what a call comes to: the result, or the exception with what its traceback shows of this file."""
    for exception in RAISED:
        exception.__traceback__ = exception.__context__ = None
    try:
        return "returned", function(*args)
    except (KeyError, Leaving) as exception:
        lines = [frame.name for frame in traceback.extract_tb(exception.__traceback__) if frame.filename == __file__]
        return "raised", exception, lines, exception.__context__, exception.__cause__


def run(track: Callable[[str], AbstractContextManager[ActionTracker]]) -> list[tuple[object, ...]]:
    """Be the application: actions that end in all ways, by both spellings."""
    outcomes = [outcome(block, track, exception) for exception in (None, *RAISED, None)]
    called = block if track is untracked else action_tracking_decorator("called_handler")(block)
    return outcomes + [outcome(called, track, exception) for exception in (None, *RAISED)]


BLOCKS = 7
STATUSES = ["ok", "error", "cancelled", "ok", *("ok", "ok", "error", "error", "cancelled", "cancelled")]


class Lines(logging.Handler):
    """Keeps what is logged; the rest of logging is left out, for it is slow where the stack is deep."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        return True


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    logger, handler = logging.getLogger("llm_common"), Lines()
    logger.addHandler(handler)
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.DEBUG)
    yield handler.records
    logger.setLevel(level)
    logger.removeHandler(handler)
    logger.propagate = True


CASES = [
    (kind, point, way, where)
    for kind in KINDS
    for point in points(kind)
    for way in WAYS
    for where in settings_of(point)
]


def set_up(faulty: Faulty, where: str, monkeypatch: pytest.MonkeyPatch) -> tuple[MemoryBackend, bool]:
    """Configure ``faulty`` beside a backend that is healthy, and return that, and whether it went well.

    Where it didn't, the healthy one is in force alone.
    """
    healthy = MemoryBackend()
    original = plugins.load
    monkeypatch.setattr(plugins, "load", lambda name, *args: faulty if name == "faulty" else original(name, *args))
    backends: dict[str, list[object]] = {
        "alone": ["faulty"],
        "first": ["faulty", healthy],
        "last": [healthy, "faulty"],
    }
    configure(app="shop_bot", backends=[healthy], extra_metrics="all")
    extras = "llm_tokens,first_item" if where == "alone" else "all"  # with actions in progress nothing is sampled
    try:
        configure(app="shop_bot", backends=backends[where], extra_metrics=extras)
    except LLMCommonError:
        return healthy, False
    return healthy, True


def exercise(where: str) -> None:
    """Be the application, on the web and through the end."""
    assert run(action_tracking) == run(untracked)
    for _ in range(FOLD_AT + 2 if where == "alone" else 0):
        with action_tracking("often_handler"):
            pass
    for _ in range(2):
        http_tracking("app_api", "/items", "GET", 7, 200, 0.01, 5)
    assert respond("GET", "", {}, None).status == 200
    shutdown()


@pytest.mark.parametrize(
    "kind",
    # How deep a recursion may go depends on the version of Python; which backend it is about doesn't.
    [pytest.param(kind, marks=() if kind == "prometheus" else pytest.mark.once) for kind in KINDS],
)
def test_no_fault_of_a_backend_reaches_the_application(
    kind: str, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    problems: list[str] = []
    for case in CASES:
        if case[0] != kind:
            continue
        seen += 1
        logged.clear()
        try:
            with monkeypatch.context() as patch:
                check(case, logged, patch)
        except BaseException as problem:
            problems.append(f"{case}: {type(problem).__name__} {str(problem)[:300]}")
    print(f"{seen} cases of {kind}")
    assert seen == sum(len(WAYS) * len(settings_of(point)) for point in points(kind)) > 400
    assert not problems, f"{len(problems)} of {seen}:\n" + "\n".join(problems)


@contextmanager
def little_stack() -> Iterator[None]:
    """Let recursion end soon: how deep it goes makes it slow, and nothing else."""
    limit, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(depth + 250)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def check(case: tuple[str, str, str, str], logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, point, way, where = case
    faulty = Faulty(kind, point, WAYS[way])
    healthy, configured = set_up(faulty, where, monkeypatch)
    with little_stack():
        exercise(where)
    assert faulty.calls[point], "the scenario never reaches it"
    warnings = [record for record in logged if record.levelno >= logging.WARNING]
    if way in RAISING and configured and point != "collect":  # of which there is one warning in each process
        assert [record.exc_info is not None for record in warnings] in ([True], [True, False])
        assert len(warnings) == 1 or "switched off" in warnings[1].getMessage()
    assert len({record.getMessage() for record in warnings}) == len(warnings)
    if where == "alone":
        return
    # The others are those that the backend itself tracks.
    if way in RAISING and configured:
        check_counted(faulty, healthy)
    events = [event for event in healthy.events if event.size is not None or event.name == "called_handler"]
    assert [str(event.status) for event in events] == STATUSES
    assert [exchange.request_bytes for exchange in healthy.exchanges] == [5, 5]
    extras = Counter(record.metric for record in healthy.records if isinstance(record, MetricRecord))
    assert (extras[LLM_TOKENS], extras[ACTION_FIRST_ITEM]) == (BLOCKS, BLOCKS)


def check_counted(faulty: Faulty, healthy: MemoryBackend) -> None:
    """Each fault is counted once, by what was asked; those of being asked to count one are not."""
    counted = Counter(
        record.values
        for record in healthy.records
        if isinstance(record, MetricRecord) and record.metric is BACKEND_ERRORS
    )
    operation = faulty.point.rpartition("().")[2] or faulty.point
    assert list(counted) == [("faulty", operation, "dev", "shop_bot")]
    assert counted.total() == faulty.calls[faulty.point] - faulty.unasked


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("point", points("ActionRecorder"))
def test_what_stops_the_program_passes_through_a_backend(
    kind: type[BaseException], point: str, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler raises it, wherever the program is at the moment."""
    faulty = Faulty("ActionRecorder", point, fail(kind))
    with pytest.raises(kind):
        set_up(faulty, "first", monkeypatch)
        exercise("first")
    assert not logged
    faulty.point = ""
    with pytest.MonkeyPatch.context() as patch:
        set_up(faulty, "first", patch)
    exercise("first")
