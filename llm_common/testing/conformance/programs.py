"""Random programs that run on a backend and on the memory backend side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llm_common.backends.memory import MemoryBackend
from llm_common.catalog import Buckets
from llm_common.contract import FOLD_AT, HttpSeries, Status
from llm_common.dispatch import Configuration, bind_http, configure, shutdown
from llm_common.testing.conformance.comparison import check_shown
from llm_common.testing.conformance.session import stopped_clock
from llm_common.testing.families import families
from llm_common.testing.strategies import hostile_names
from llm_common.tracker import ActionTracker
from llm_common.tracking import action_tracking

if TYPE_CHECKING:
    from llm_common.testing.conformance.backend import BackendContract

STEPS = 25
"""How many steps a program has at most."""

NAMES = st.sampled_from(["menu_handler", "nightly_task", "answer_agent"]) | hostile_names()
SECONDS = st.integers(0, 2**20).map(lambda number: number / 64)
SIZES = st.integers(0, 2**40)
LABELS = st.sampled_from(["dev", "prod", 'a "quoted" one'])
SERIES = st.builds(
    HttpSeries,
    st.sampled_from(["GET", "POST", "_OTHER"]),
    st.sampled_from(["200", "404", "timeout", "cancelled"]),
    st.sampled_from(["/", "items/{item_id}"]) | hostile_names(),
    st.sampled_from(["app_api", "llm"]),
)


@dataclass(frozen=True)
class Lane:
    """A configuration of its own, with what is recorded in it."""

    backends: Sequence[object]
    configuration: Configuration


class Programs(RuleBasedStateMachine):
    """Does everything once with the backend alone and once with the memory backend, or once with both together."""

    def __init__(self, contract: "BackendContract") -> None:
        super().__init__()
        self._contract = contract
        self._memory = MemoryBackend()
        self._stack = ExitStack()
        self._lanes: list[Lane] = []
        self._limit: int | None = None
        self._open: list[list[ActionTracker]] = []
        """The actions under way: for each a tracker in every lane."""
        self._clock = self._stack.enter_context(stopped_clock())
        self._stack.callback(contract.close)

    @initialize(together=st.booleans(), limit=st.none() | st.integers(1, 4))
    def begin(self, together: bool, limit: int | None) -> None:
        """Configure the backend."""
        backend = self._contract.create()
        every: list[list[object]] = [[backend, self._memory]] if together else [[backend], [self._memory]]
        self._limit = limit
        for backends in every:
            lane = Lane(backends, Configuration())
            self._stack.callback(lane.configuration.close)
            self._lanes.append(lane)
        self.configured("dev", "shop_bot")

    def _in_each_lane(self) -> Iterator[Lane]:
        for lane in self._lanes:
            with lane.configuration:
                yield lane

    @rule(env=LABELS, app=LABELS)
    def configured(self, env: str, app: str) -> None:
        """Configure once more, with the same backends."""
        for lane in self._in_each_lane():
            configure(env=env, app=app, backends=lane.backends, max_series=self._limit, strict=True)

    @rule()
    def stopped(self) -> None:
        """Shut down; until the next configuration nothing is recorded."""
        for _ in self._in_each_lane():
            shutdown(1.0)

    @rule(name=NAMES)
    def begun(self, name: str) -> None:
        """Begin an action that may end at any time."""
        self._open.append([action_tracking(name).__enter__() for _ in self._in_each_lane()])

    @precondition(lambda self: self._open)
    @rule(data=st.data(), status=st.sampled_from(Status), by_exception=st.booleans(), seconds=SECONDS)
    def ended(self, data: st.DataObject, status: Status, by_exception: bool, seconds: float) -> None:
        """End one of the actions under way, in whatever configuration it began."""
        trackers = self._open.pop(data.draw(st.integers(0, len(self._open) - 1)))
        self._clock.now += seconds
        for tracker in trackers:
            _end(tracker, status, by_exception)

    @precondition(lambda self: self._open)
    @rule(data=st.data(), amount=SIZES)
    def sized(self, data: st.DataObject, amount: int) -> None:
        """Give a size to one of the actions under way."""
        for tracker in self._open[data.draw(st.integers(0, len(self._open) - 1))]:
            tracker.size(amount)

    @rule(name=NAMES, status=st.sampled_from(Status), seconds=SECONDS, times=st.sampled_from([1, 2, FOLD_AT, 600]))
    def performed(self, name: str, status: Status, seconds: float, times: int) -> None:
        """Track some actions from begin to end."""
        for _ in self._in_each_lane():
            for _ in range(times):
                tracker = action_tracking(name).__enter__()
                self._clock.now += seconds
                _end(tracker, status, False)
                self._clock.now -= seconds

    @rule(
        series=SERIES,
        seconds=SECONDS,
        request=SIZES,
        response=SIZES,
        times=st.sampled_from([1, 2, 200]),
    )
    def exchanged(self, series: HttpSeries, seconds: float, request: int, response: int, times: int) -> None:
        """Record some HTTP exchanges."""
        for _ in self._in_each_lane():
            for _ in range(times):
                bind_http(series).finished(seconds, request, response)

    @invariant()
    def the_same(self) -> None:
        """Compare what the backend shows with what the memory backend has."""
        check_shown(self._contract.read(), families(self._memory.records, Buckets()), Buckets())

    def teardown(self) -> None:
        """End the program."""
        self._stack.close()


def _end(tracker: ActionTracker, status: Status, by_exception: bool) -> None:
    problem: BaseException | None = None
    if status is Status.CANCELLED:
        problem = GeneratorExit()
    elif status is Status.ERROR and by_exception:
        problem = ArithmeticError()
    elif status is Status.ERROR:
        tracker.to_fail()
    tracker.__exit__(type(problem) if problem else None, problem, None)


def run_programs(contract: "Callable[[], BackendContract]", examples: int) -> None:
    """Run so many programs, each on a backend of its own; raise for the shortest that goes wrong."""
    copy_context().run(  # the current action of a program that ended early must not outlive it
        run_state_machine_as_test,
        lambda: Programs(contract()),  # type: ignore[arg-type] # it calls whatever makes a machine
        settings=settings(
            max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
