"""The contract of everything that records, as a suite of tests.

A backend's author subclasses :class:`BackendContract` and says how to make the backend and how to read its values back.
The suite gives it measurements through the facade, as applications do, and compares what it shows.
"""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from itertools import count, pairwise
from math import inf, nextafter
from threading import Barrier, Thread
from threading import enumerate as threads_alive
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric as Family

from llm_common.backends.memory import MemoryBackend
from llm_common.catalog import (
    ACTION_DURATION_BUCKETS,
    ACTION_FIRST_ITEM,
    ACTION_IN_PROGRESS,
    BACKEND_ERRORS,
    EXTRA_METRICS,
    HTTP_DURATION_BUCKETS,
    HTTP_SIZE_BUCKETS,
    LLM_TOKENS,
    METRICS,
    OVERFLOW,
)
from llm_common.contract import FOLD_AT, HttpSeries, Status
from llm_common.decorator import action_tracking_decorator
from llm_common.dispatch import Configuration, active, bind_http, configure, override, shutdown
from llm_common.hookspecs import hookimpl
from llm_common.testing.conformance.interruption import interrupted_everywhere, within
from llm_common.testing.conformance.programs import run_programs
from llm_common.testing.conformance.recording import PATIENCE
from llm_common.testing.conformance.session import Session, stopped_clock
from llm_common.testing.families import values
from llm_common.tracking import action_tracking

SERVED = HttpSeries("POST", "201", "items/{item_id}", "app_api")
SENT = HttpSeries("GET", "timeout", "v1/models", "llm")

TIMEOUT = 1.0
"""How long, in seconds, a backend is given to shut down."""

SLACK = 4.0
"""By how much, in seconds, it may be late on a busy machine."""

THREADS = 8
"""How many threads record at the same time."""

ROUNDS = 500
"""How often each of them does everything once."""

NEW_EVERY = 200
"""After how many interruptions the next one brings a name that was never used."""


class ExemplarSource:
    """A plugin that gives the labels of exemplars."""

    def __init__(self, labels: Callable[[], Mapping[str, str] | None]) -> None:
        self._labels = labels

    @hookimpl
    def llm_common_exemplar_source(self) -> Callable[[], Mapping[str, str] | None]:
        """Return what tells the labels."""
        return self._labels


HOSTILE = (
    *('"', "\\", "\n", "\\n", '\\"', 'a="b"', "{}", "{other}", "%s%d%%", "#", " ", "a b", "a,b", "\t", "\r", "\r\n"),
    *("\x00", "\x1b[31m", "\x7f", "\u2028", "é", "e\u0301", "ﬀ", "кнопка_handler", "עברית", "😀", "\ufeff", "\ud800"),
    *("__name__", "le", "+Inf", "NaN", "1", "None", "A", "a", "x" * 4000, "# EOF", "${name}", "<b>&", "a" * 128 + "b"),
)
"""Texts that a backend must show as they are: as the name of an action, and in every other label."""


class Undecided:
    """A plugin that fails."""

    name = "undecided"

    @hookimpl
    def llm_common_classify_exception(self, exception: BaseException) -> Status:
        """Raise."""
        raise LookupError("no such class of exceptions")


class BackendContract(ABC):
    """Subclass it, and define :meth:`create` and :meth:`read`."""

    patience = PATIENCE
    """How long, in seconds, the suite waits before it calls a deadlock by its name."""

    examples = 25
    """How many random programs are run."""

    @abstractmethod
    def create(self) -> object:
        """Return the backend, with a storage of its own in which nothing was recorded yet.

        It can keep in ``self`` what :meth:`read` needs: it is called once for each instance, and on a copy of its own
        for each random program.
        """

    @abstractmethod
    def read(self) -> Iterable[Family]:
        """Return what the backend shows now, as prometheus_client's parser would return it for a scrape.

        A backend that has a scrape returns ``text_string_to_metric_families(text)``; any other makes such families from
        what it has. Families of other names are ignored. Called at any time, also while actions are recorded.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to release
        """Release what :meth:`create` made. Nothing by default."""

    @contextmanager
    def session(self, **changes: Any) -> Iterator[Session]:
        """Configure a fresh backend, with ``changes`` to the settings, for the length of a ``with`` block."""
        with Configuration(), stopped_clock() as clock:
            backend = self.create()
            try:
                yield Session(backend, self.read, clock, **changes)
            finally:
                self._shut_down()
                self.close()

    def _shut_down(self) -> None:
        """Call ``llm_common_shutdown`` where it may hang, which must not hold the locks of the facade then."""
        patience = min(self.patience, TIMEOUT + SLACK)
        within(patience, lambda: active().shutdown(TIMEOUT), f"llm_common_shutdown(timeout={TIMEOUT})")

    def test_nothing_is_shown_before_anything_was_recorded(self) -> None:
        """Configuring alone, and binding alone, measure nothing."""
        with self.session() as session:
            session.check(" before anything was recorded")
            with suppress(AttributeError), action_tracking("menu_handler"):
                session.check(" while the first action is under way")
                raise AttributeError
            session.expect_action("menu_handler", Status.ERROR)
            session.check()

    def test_every_metric_has_its_name_type_and_labels(self) -> None:
        """The six metrics of the catalogue, each label value where it belongs, no others."""
        with self.session(app="the_app", env="the_env") as session:
            session.act("the_name", Status.OK, 0.2, [3])
            session.exchange(SERVED, 0.02, 7, 2_000)
            session.check()
            shown = {
                metric for series, _ in values(self.read()) for metric in METRICS if series.startswith(metric.name)
            }
            assert shown == set(METRICS)

    @pytest.mark.parametrize(
        ("exception", "status"),
        [
            (None, Status.OK),
            (ValueError(), Status.ERROR),
            (TimeoutError(), Status.ERROR),
            (ExceptionGroup("both", [ValueError()]), Status.ERROR),
            (asyncio.CancelledError(), Status.CANCELLED),
            (GeneratorExit(), Status.CANCELLED),
            (KeyboardInterrupt(), Status.CANCELLED),
            (SystemExit(), Status.CANCELLED),
            (BaseExceptionGroup("stopped", [SystemExit()]), Status.CANCELLED),
        ],
        ids=lambda value: "" if isinstance(value, Status) else type(value).__name__,
    )
    def test_the_status_says_how_an_action_ended(self, exception: BaseException | None, status: Status) -> None:
        """One count with the status, one duration whatever the status; the exception comes through untouched."""
        with self.session() as session:
            caught: BaseException | None = None
            try:
                with action_tracking("menu_handler"):
                    session.clock.now += 0.3
                    if exception is not None:
                        raise exception
            except BaseException as raised:
                caught = raised
            assert caught is exception
            session.expect_action("menu_handler", status, 0.3)
            session.check()

    def test_an_action_that_fails_without_an_exception_is_an_error(self) -> None:
        """``to_fail()`` makes an error of a block that ends normally; its name is in no label."""
        with self.session() as session:
            with action_tracking("menu_handler") as tracker:
                tracker.to_fail("refused")
            session.expect_action("menu_handler", Status.ERROR)
            session.check()

    def test_statuses_are_counted_apart_and_durations_together(self) -> None:
        """Many actions of one name, with every status."""
        with self.session() as session:
            for times, status in enumerate(Status, start=2):
                session.act("menu_handler", status, 0.125 * times, times=times)
            session.act("other_task", Status.CANCELLED, 100)
            session.check()

    def test_buckets_have_the_documented_bounds_which_belong_to_them(self) -> None:
        """A value on a bound counts below it; one just above does not; the last bucket has no bound."""
        with self.session() as session:
            for bound in (0.0, *ACTION_DURATION_BUCKETS, 1e9):
                session.act("nightly_task", seconds=bound)
                session.act("nightly_task", Status.ERROR, nextafter(bound, inf))
            for bound in (0.0, *HTTP_DURATION_BUCKETS, 1e6):
                session.exchange(SERVED, bound)
                session.exchange(SERVED, nextafter(bound, inf))
            for size in (0, *map(int, HTTP_SIZE_BUCKETS), 10**12):
                session.exchange(SENT, 0.5, size, size + 1)
            session.check()

    def test_buckets_can_be_configured(self) -> None:
        """The settings' bounds, for each histogram its own."""
        with self.session() as session:  # nothing is recorded yet, so what a later configuration says counts
            session.configure(
                action_duration_buckets=[0.5, 7], http_duration_buckets=[0.25, 2, 3], http_size_buckets=[10, 1e7]
            )
            for seconds in (0.5, 0.6, 7, 8):
                session.act("menu_handler", seconds=seconds)
                session.exchange(SERVED, seconds, int(seconds * 10), int(seconds * 1e6))
            session.check()

    def test_sizes_add_up_at_once(self) -> None:
        """``size()`` shows before the action ends, adds, and keeps to its action."""
        with self.session() as session:
            with action_tracking("import_task") as tracker:
                for amount in (1, 2.5, 0, 10**6):
                    tracker.size(amount)
                session.clock.now += 1
                session.expect_action("import_task", seconds=1, sizes=(1, 2.5, 0, 10**6))
                given, ended = session.records[:-1], session.records[-1]
                session.records = given
                session.check(" while the action is under way")
            session.records = [*given, ended]
            session.act("export_task", Status.ERROR, 2, [2**53, 4])
            session.act("idle_task")
            session.check()

    def test_many_small_numbers_add_up(self) -> None:
        """Sums are right where values are small, many, and no powers of two."""
        with self.session() as session:
            session.act("menu_handler", seconds=0.1, sizes=[0.1, 1e-9], times=3 * FOLD_AT + 1)
            session.exchange(SERVED, 0.001, 1, 2, times=3 * FOLD_AT + 1)
            session.check()

    def test_metrics_beside_the_contract_are_shown_when_they_are_switched_on(self) -> None:
        """Tokens, first items and actions in progress, for backends that have ``llm_common_bind_metric``."""
        with self.session(extra_metrics="all") as session:
            if not hasattr(session.backend, "llm_common_bind_metric"):
                pytest.skip("the backend shows the metrics of the contract alone")
            with action_tracking("answer_llm_call") as tracker:
                session.clock.now += 0.25
                for _ in range(2):
                    tracker.first_item()
                tracker.tokens("small-1", input=10, output=3)
                tracker.tokens("small-1", input=5)
                session.expect_metric(LLM_TOKENS, 15, "answer_llm_call", "input", "small-1")
                session.expect_metric(LLM_TOKENS, 3, "answer_llm_call", "output", "small-1")
                session.expect_metric(ACTION_FIRST_ITEM, 0.25, "answer_llm_call")
                session.expect_metric(ACTION_IN_PROGRESS, 1, "answer_llm_call")
                session.check(" while the action is under way")
            session.expect_metric(ACTION_IN_PROGRESS, -1, "answer_llm_call")
            session.expect_action("answer_llm_call", seconds=0.25)
            session.check()
            session.act("answer_llm_call", Status.ERROR, times=200)
            session.check(" after many actions")

    def test_faults_of_others_are_counted(self) -> None:
        """Without being switched on, by what was asked; for backends that have ``llm_common_bind_metric``."""
        with self.session(plugins=[Undecided()]) as session:
            if not hasattr(session.backend, "llm_common_bind_metric"):
                pytest.skip("the backend shows the metrics of the contract alone")
            for _ in range(2):
                with suppress(KeyError), action_tracking("menu_handler"):
                    raise KeyError
                session.expect_action("menu_handler", Status.ERROR)
                session.expect_metric(BACKEND_ERRORS, 1, "undecided", "llm_common_classify_exception")
                session.check()

    def test_metrics_beside_the_contract_are_off_by_default(self) -> None:
        """They are not even shown as zero."""
        with self.session() as session:
            with action_tracking("answer_llm_call") as tracker:
                tracker.first_item()
                tracker.tokens("small-1", input=10, output=3)
            session.expect_action("answer_llm_call")
            session.check()
            extra = tuple(metric.name for metric in EXTRA_METRICS.values())
            assert not [series for series, _ in values(self.read()) if series.startswith(extra)]

    @pytest.mark.parametrize("status", ["200", "404", "499", "500", "error", "timeout", "cancelled"])
    def test_http_exchanges_count_by_all_their_labels(self, status: str) -> None:
        """Each combination apart; the request's body is ``in``, the response's ``out``, on both sides of the wire."""
        with self.session() as session:
            for method in ("GET", "_OTHER"):
                for resource in ("/", "items/{item_id}"):
                    for number, app_type in enumerate(("app_api", "llm", "telegram_api"), start=1):
                        series = HttpSeries(method, status, resource, app_type)
                        session.exchange(series, 0.01 * number, 10 * number, 10_000 * number, times=number)
            session.check()

    def test_a_method_a_resource_and_a_status_may_be_the_same_text(self) -> None:
        """Series that differ only in which label has which text are different series."""
        with self.session(app="same", env="other") as session:
            for times, series in enumerate(
                [("a", "b", "c", "d"), ("b", "a", "c", "d"), ("a", "c", "b", "d"), ("d", "b", "c", "a")], start=1
            ):
                session.exchange(HttpSeries(*series), 1, times, 2 * times, times=times)
            session.act("same", times=2)
            session.act("other", times=3)
            session.check()

    def test_many_series_are_all_shown(self) -> None:
        """A thousand and a half actions, each with its own."""
        with self.session() as session:
            for number in range(1_500):
                session.act(f"own_{number}_handler", seconds=number)
            session.check()

    def test_a_source_of_exemplars_changes_no_counts(self) -> None:
        """Whether a measurement has an exemplar or not, it counts."""
        with self.session() as session:
            labels = iter([None, {"trace_id": "a"}, None, {"trace_id": "b"}] * FOLD_AT)
            session.configure(plugins=[ExemplarSource(labels.__next__)])
            for status in Status:
                session.act("menu_handler", status, 0.25, times=FOLD_AT)
            session.exchange(SERVED, 0.25, 1, 2, times=20)
            session.check()

    def test_threads_lose_and_double_nothing(self) -> None:
        """Several threads record the same series, and the values are read all the time, which never go down."""
        with self.session() as session:
            start = Barrier(THREADS + 1)
            seen: list[dict[Any, float]] = []

            def work(number: int) -> None:
                start.wait(self.patience)
                for _ in range(ROUNDS):
                    for status in Status:
                        with suppress(ArithmeticError, GeneratorExit), action_tracking("menu_handler") as tracker:
                            tracker.size(2)
                            session.end(tracker, status, 0.0)
                    with action_tracking(f"own_{number}_task"):
                        pass
                    bind_http(SERVED).finished(0.5, 10, 2_000)

            threads = [Thread(target=work, args=(number,), daemon=True) for number in range(THREADS)]
            before = sys.getswitchinterval()
            sys.setswitchinterval(1e-5)
            try:
                for thread in threads:
                    thread.start()
                start.wait(self.patience)
                while any(thread.is_alive() for thread in threads):
                    seen.append(values(self.read()))
                    threads[0].join(0.02)
            finally:
                sys.setswitchinterval(before)
                for thread in threads:  # none goes on in the next test, also where reading raised
                    thread.join(self.patience)
            for earlier, later in pairwise(seen):
                fell = [series for series, value in earlier.items() if later.get(series, 0.0) < value]
                assert not fell, f"went down or away between two scrapes: {fell[:3]}"
            for status in Status:
                session.expect_action("menu_handler", status, sizes=[2], times=THREADS * ROUNDS)
            for number in range(THREADS):
                session.expect_action(f"own_{number}_task", times=ROUNDS)
            session.expect_exchange(SERVED, 0.5, 10, 2_000, times=THREADS * ROUNDS)
            session.check()

    def test_tasks_that_are_cancelled_count_once(self) -> None:
        """Concurrent tasks that end, fail or are cancelled, in whichever order."""
        with self.session() as session:

            async def act(number: int) -> None:
                with action_tracking("answer_agent"):
                    for _ in range(number % 5):
                        await asyncio.sleep(0)
                    if number % 3 == 1:
                        raise ArithmeticError
                    if number % 3 == 2:
                        await asyncio.Event().wait()

            async def main() -> list[object]:
                tasks = [asyncio.create_task(act(number)) for number in range(150)]
                for _ in range(10):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                return list(await asyncio.gather(*tasks, return_exceptions=True))

            ends = asyncio.run(main())
            kinds: list[type] = [type(None), ArithmeticError, asyncio.CancelledError]
            for status, kind in zip(Status, kinds, strict=True):
                times = sum(isinstance(end, kind) for end in ends)
                assert times == 50
                session.expect_action("answer_agent", status, times=times)
            session.check()

    def test_decorated_generators_count_once(self) -> None:
        """A generator that is left half-way is cancelled, one that is exhausted is not."""
        with self.session() as session:

            @action_tracking_decorator("stream_llm_call")
            def stream() -> Iterator[int]:
                yield from range(3)

            assert list(stream()) == [0, 1, 2]
            half = stream()
            next(half)
            half.close()  # type: ignore[attr-defined]
            session.expect_action("stream_llm_call")
            session.expect_action("stream_llm_call", Status.CANCELLED)
            session.check()

    def test_interruptions_at_any_instruction_lose_and_double_nothing(self) -> None:
        """A signal handler or a ``__del__`` that tracks may interrupt recording and reading anywhere."""
        with self.session() as session:

            def program() -> None:  # pragma: no cover - another tracer is at work
                for _ in range(FOLD_AT + 8):
                    with suppress(ArithmeticError), action_tracking("menu_handler") as tracker:
                        tracker.size(1)
                        raise ArithmeticError
                    with action_tracking("menu_handler"):
                        pass
                    bind_http(SERVED).finished(0.5, 10, 2_000)
                list(self.read())

            def interruption() -> None:  # pragma: no cover - another tracer is at work
                with suppress(GeneratorExit), action_tracking("menu_handler") as tracker:
                    tracker.size(2)
                    raise GeneratorExit
                bind_http(SERVED).finished(0.25, 1, 3)

            with suppress(GeneratorExit), action_tracking("menu_handler"):  # bound before anything interrupts
                raise GeneratorExit
            bind_http(SERVED).finished(0.25, 1, 3)
            times: list[int] = []
            within(
                self.patience,
                lambda: times.append(interrupted_everywhere(program, interruption)),
                "recording and reading, interrupted by a signal handler or a __del__ that records,",
            )
            session.expect_action("menu_handler", Status.ERROR, sizes=[1], times=FOLD_AT + 8)
            session.expect_action("menu_handler", times=FOLD_AT + 8)
            session.expect_action("menu_handler", Status.CANCELLED, sizes=[2], times=times[0])
            session.expect_action("menu_handler", Status.CANCELLED)
            session.expect_exchange(SERVED, 0.5, 10, 2_000, times=FOLD_AT + 8)
            session.expect_exchange(SERVED, 0.25, 1, 3, times=times[0] + 1)
            session.check()

    def test_actions_that_are_first_used_in_interruptions_count(self) -> None:
        """A signal handler or a ``__del__`` may be the first to track an action, also while another is bound."""
        with self.session(max_series=10_000) as session:
            numbers = count()

            def interruption() -> None:  # pragma: no cover - another tracer is at work
                number = next(numbers) // NEW_EVERY
                with action_tracking(f"new_{number}_handler"):
                    pass
                bind_http(SERVED._replace(resource=f"new/{number}")).finished(0.25, 1, 3)

            def program() -> None:  # pragma: no cover - another tracer is at work
                list(self.read())
                for number in range(3):
                    with action_tracking(f"own_{number}_task"):
                        pass
                    bind_http(SERVED._replace(resource=f"own/{number}")).finished(0.5, 10, 2_000)

            within(
                self.patience,
                lambda: interrupted_everywhere(program, interruption),
                "reading, binding and recording, interrupted by a signal handler or a __del__ that binds,",
            )
            total = next(numbers)
            for number in range(total // NEW_EVERY + 1):
                times = min(NEW_EVERY, total - number * NEW_EVERY)
                session.expect_action(f"new_{number}_handler", times=times)
                session.expect_exchange(SERVED._replace(resource=f"new/{number}"), 0.25, 1, 3, times=times)
            for number in range(3):
                session.expect_action(f"own_{number}_task")
                session.expect_exchange(SERVED._replace(resource=f"own/{number}"), 0.5, 10, 2_000)
            session.check()

    def test_hostile_text_is_shown_as_it_is(self) -> None:
        """Quotes, newlines, control characters, any script; in the name of an action."""
        with self.session() as session:
            for times, text in enumerate(HOSTILE, start=1):
                session.act(text, times=times)
                session.act(text, Status.ERROR, sizes=[times])
            session.check()

    @pytest.mark.parametrize("field", HttpSeries._fields)
    def test_hostile_text_is_shown_as_it_is_in_http_labels(self, field: str) -> None:
        """The same in each label of HTTP metrics."""
        with self.session() as session:
            for size, text in enumerate(HOSTILE):
                session.exchange(SERVED._replace(**{field: text}), 0.5, size, 10 * size)
            session.exchange(HttpSeries(OVERFLOW, OVERFLOW, OVERFLOW, OVERFLOW))
            session.check()

    def test_hostile_text_is_shown_as_it_is_in_env_and_app(self) -> None:
        """The same in the labels that all metrics share."""
        with self.session() as session:
            for text in HOSTILE:
                if text.strip():
                    session.configure(env=text, app=text)
                    session.act("menu_handler", sizes=[1])
                    session.exchange(SERVED, 0.5)
            session.check()

    def test_another_configuration_gives_new_series_and_keeps_the_old(self) -> None:
        """Env and app are those in force when the action began; earlier counts stay, and go on where they were."""
        with self.session(env="dev") as session:
            session.act("menu_handler", seconds=1, sizes=[1])
            session.exchange(SERVED, 1, 2, 3)
            earlier = session.settings
            with action_tracking("menu_handler") as tracker:
                session.configure(env="prod", app="other_bot")
                tracker.size(5)
            session.expect_action("menu_handler", sizes=[5], settings=earlier)
            session.act("menu_handler", Status.ERROR, 2, [4])
            session.exchange(SERVED, 5, 6, 7)
            session.check()
            session.configure(env="dev")
            session.act("menu_handler", seconds=1)
            session.exchange(SERVED, 1, 2, 3)
            session.check(" after the first configuration came back")

    def test_a_backend_that_was_replaced_gets_nothing_more(self) -> None:
        """Only what was under way ends on it; the other gets the rest."""
        with self.session() as session:
            session.act("menu_handler")
            other = MemoryBackend()
            with suppress(ArithmeticError), action_tracking("menu_handler"):
                configure(app="shop_bot", backends=[other], strict=True)
                raise ArithmeticError
            session.expect_action("menu_handler", Status.ERROR)
            with action_tracking("menu_handler"):
                pass
            bind_http(SERVED).finished(1, 2, 3)
            session.check()
            assert len(other.records) == 2
            session.configure()
            session.act("menu_handler")
            with override(backends=(other,)), action_tracking("menu_handler"):
                pass
            session.act("menu_handler")
            session.check(" after it came back")

    def test_it_records_beside_others(self) -> None:
        """What is given to several backends is given to each once."""
        with self.session() as session:
            other = MemoryBackend()
            session.configure(others=[other])
            for status in Status:
                session.act("menu_handler", status, 0.5, [1, 2], times=FOLD_AT + 1)
            session.exchange(SERVED, 1, 2, 3, times=FOLD_AT + 1)
            session.check()
            assert len(other.records) == len(session.records)

    def test_names_past_the_limit_are_counted_together(self) -> None:
        """The series ``{other}`` takes them."""
        with self.session(max_series=2) as session:
            for name in ("a", "b", "c", "d"):
                with action_tracking(name):
                    pass
            session.expect_action("a")
            session.expect_action("b")
            session.expect_action(OVERFLOW, times=2)
            session.check()

    def test_after_shutdown_everything_recorded_is_shown(self) -> None:
        """Shutting down hands over what was held back, comes to an end, and may be done again."""
        with self.session() as session:
            for status in Status:
                session.act("menu_handler", status, 0.5, [1])
            session.exchange(SERVED, 1, 2, 3)
            self._shut_down()
            shutdown(1.0)
            session.check(" after shutdown()")
            with action_tracking("late_task"):
                pass
            bind_http(SENT).finished(1, 2, 3)
            shutdown(1.0)
            session.check(" after shutdown() and an action that came too late")
            session.configure()
            session.act("menu_handler")
            session.check(" after it was configured again")

    def test_an_action_under_way_at_shutdown_still_counts(self) -> None:
        """It ends on the backends that it began on, however late."""
        with self.session() as session:
            with action_tracking("nightly_task") as tracker:
                tracker.size(1)
                shutdown()
                tracker.size(2)
                session.clock.now += 3
            session.expect_action("nightly_task", seconds=3, sizes=[1, 2])
            session.check()

    def test_it_leaves_no_thread_behind(self) -> None:
        """What was started is stopped by ``llm_common_shutdown``, or by :meth:`close`."""
        before = set(threads_alive())
        with self.session() as session:
            session.act("menu_handler", sizes=[1])
            session.exchange(SERVED)
            list(self.read())
        left = [thread.name for thread in set(threads_alive()) - before if thread.is_alive()]
        assert not left, f"threads that still run after the shutdown: {', '.join(left)}"

    def test_random_programs_give_what_the_memory_backend_has(self) -> None:
        """Actions, exchanges, reconfigurations, shutdowns, in any order, compared after each step."""
        run_programs(lambda: copy(self), self.examples)
