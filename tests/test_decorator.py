import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import types
import unittest.mock
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_common import action_tracking, action_tracking_decorator, configure, current_action
from llm_common.testing import record_metrics
from llm_common.tracker import NO_ACTION, ActionTracker
from recording import ListBackend


@pytest.fixture(autouse=True)
def backend() -> ListBackend:
    backend = ListBackend()
    configure(app="shop_bot", backends=[backend], strict=True)
    return backend


def plain(number: int, *rest: str, key: bool = False) -> int:
    """Answer."""
    current_action().size(number)
    return number


async def coroutine(number: int) -> int:
    await asyncio.sleep(0)
    current_action().size(number)
    return number


def generator(number: int) -> Generator[ActionTracker, str, str]:
    try:
        received = yield current_action()
    except KeyError:
        received = "caught"
    current_action().size(number)
    yield current_action()
    return received


async def async_generator(number: int) -> AsyncIterator[ActionTracker]:
    try:
        yield current_action()
    except KeyError:
        yield current_action()
    await asyncio.sleep(0)
    current_action().size(number)


class CallableObject:
    """A callable with a state."""

    kind = "object"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, number: int) -> int:
        self.calls += 1
        current_action().size(number)
        return number


class AsyncCallable:
    async def __call__(self, number: int) -> int:
        current_action().size(number)
        return number


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_inspect_says_the_same_of_a_decorated_function(function: Callable[..., Any]) -> None:
    decorated = action_tracking_decorator("menu_handler")(function)
    for question in (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.signature,
        inspect.getdoc,
        inspect.getmodule,
    ):
        assert question(decorated) == question(function)
    assert (decorated.__name__, decorated.__qualname__) == (function.__name__, function.__qualname__)
    assert decorated.__wrapped__ is function  # type: ignore[attr-defined]


def test_a_function_is_counted_per_call_with_its_arguments_and_result(backend: ListBackend) -> None:
    decorated = action_tracking_decorator("menu_handler")(plain)
    assert backend.bound == []
    assert decorated(3, "a", key=True) == 3
    assert backend.calls == [("menu_handler", 3), ("menu_handler", "ok")]


def test_an_exception_passes_through_a_decorated_function(backend: ListBackend) -> None:
    raised = KeyError("gone")

    @action_tracking_decorator("menu_handler")
    def fail() -> None:
        raise raised

    with pytest.raises(KeyError) as caught:
        fail()
    assert caught.value is raised
    assert backend.calls == [("menu_handler", "error")]


def test_a_coroutine_counts_when_it_has_run_and_not_before(backend: ListBackend) -> None:
    decorated = action_tracking_decorator("answer_llm_call")(coroutine)
    awaitable = decorated(5)
    assert backend.calls == []
    assert asyncio.run(awaitable) == 5
    assert backend.calls == [("answer_llm_call", 5), ("answer_llm_call", "ok")]


def test_a_cancelled_task_counts_as_cancelled(backend: ListBackend) -> None:
    @action_tracking_decorator("answer_llm_call")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert backend.calls == [("answer_llm_call", "cancelled")]


def test_a_generator_is_one_action_from_its_first_step_to_its_end(backend: ListBackend) -> None:
    steps = action_tracking_decorator("stream_llm_call")(generator)(7)
    assert backend.bound == []
    tracker = next(steps)
    assert isinstance(tracker, ActionTracker)
    assert current_action() is NO_ACTION
    assert steps.send("hello") is tracker
    assert current_action() is NO_ACTION
    assert backend.calls == [("stream_llm_call", 7)]
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "hello"
    assert backend.calls == [("stream_llm_call", 7), ("stream_llm_call", "ok")]


def test_an_exception_can_be_thrown_into_a_decorated_generator(backend: ListBackend) -> None:
    def collect() -> Generator[object, None, None]:
        result = yield from steps
        yield result

    steps = action_tracking_decorator("stream_llm_call")(generator)(1)
    outer = collect()
    next(outer)
    assert outer.throw(KeyError()) is not NO_ACTION
    assert next(outer) == "caught"
    assert backend.calls[-1] == ("stream_llm_call", "ok")


def test_an_exception_that_leaves_a_generator_is_an_error(backend: ListBackend) -> None:
    steps = action_tracking_decorator("stream_llm_call")(generator)(1)
    next(steps)
    raised = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught:
        steps.throw(raised)
    assert caught.value is raised
    assert backend.calls == [("stream_llm_call", "error")]


def test_a_generator_that_is_closed_early_is_cancelled_and_cleans_up(backend: ListBackend) -> None:
    seen: list[object] = []

    @action_tracking_decorator("stream_llm_call")
    def stream() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            seen.append(current_action())

    for _ in stream():
        break
    assert isinstance(seen[0], ActionTracker)
    assert seen[0] is not NO_ACTION
    assert backend.calls == [("stream_llm_call", "cancelled")]


def test_a_generator_that_is_never_started_is_no_action(backend: ListBackend) -> None:
    action_tracking_decorator("stream_llm_call")(generator)(1).close()
    assert backend.calls == []


def test_two_interleaved_generators_each_keep_their_own_tracker(backend: ListBackend) -> None:
    first = action_tracking_decorator("first_task")(generator)(1)
    second = action_tracking_decorator("second_task")(generator)(2)
    trackers = (next(first), next(second))
    assert (next(first), next(second)) == trackers
    assert trackers[0] is not trackers[1]
    assert (list(first), list(second)) == ([], [])
    assert backend.calls == [("first_task", 1), ("second_task", 2), ("first_task", "ok"), ("second_task", "ok")]


def test_with_noop_a_generator_still_passes_everything_on() -> None:
    configure(app="shop_bot", backends=["noop"])
    steps = action_tracking_decorator("stream_llm_call")(generator)(1)
    assert next(steps) is NO_ACTION
    steps.throw(KeyError())
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "caught"


def test_an_async_generator_is_one_action_to_its_end(backend: ListBackend) -> None:
    async def main() -> None:
        items = action_tracking_decorator("stream_llm_call")(async_generator)(4)
        async for tracker in items:
            assert tracker is not NO_ACTION
            assert current_action() is NO_ACTION

    asyncio.run(main())
    assert backend.calls == [("stream_llm_call", 4), ("stream_llm_call", "ok")]


def test_an_async_generator_takes_what_is_thrown_and_sent_into_it(backend: ListBackend) -> None:
    async def main() -> None:
        items: Any = action_tracking_decorator("stream_llm_call")(async_generator)(4)
        tracker = await items.asend(None)
        assert await items.athrow(KeyError()) is tracker
        with pytest.raises(ValueError, match="no"):
            await items.athrow(ValueError("no"))

    asyncio.run(main())
    assert backend.calls == [("stream_llm_call", "error")]


def test_an_async_generator_that_is_closed_early_is_cancelled(backend: ListBackend) -> None:
    closed: list[object] = []

    @action_tracking_decorator("stream_llm_call")
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(current_action())

    async def main() -> None:
        items: Any = stream()
        assert await anext(items) == 1
        await items.aclose()

    asyncio.run(main())
    assert isinstance(closed[0], ActionTracker)
    assert backend.calls == [("stream_llm_call", "cancelled")]


def test_an_async_generator_left_to_the_loop_is_cancelled_there(backend: ListBackend) -> None:
    @action_tracking_decorator("stream_llm_call")
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        async for _ in stream():
            break

    asyncio.run(main())
    assert backend.calls == [("stream_llm_call", "cancelled")]


def test_a_loop_that_ends_closes_each_suspended_generator_once(backend: ListBackend) -> None:
    complaints: list[object] = []

    @action_tracking_decorator("stream_llm_call")
    async def stream() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0.001)

    async def main() -> list[AsyncIterator[int]]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        suspended = [stream() for _ in range(3)]
        for one in suspended:
            await anext(one)
        return suspended

    kept = asyncio.run(main())
    assert len(kept) == 3
    assert complaints == []
    assert backend.calls == [("stream_llm_call", "cancelled")] * 3


def test_an_action_begun_inside_a_generator_is_current_in_each_of_its_steps(backend: ListBackend) -> None:
    @action_tracking_decorator("stream_llm_call")
    def stream() -> Iterator[bool]:
        with action_tracking("inner_task") as inner:
            yield current_action() is inner
            yield current_action() is inner
        yield current_action() is not inner

    seen = []
    for right in stream():
        seen.append(right)
        assert current_action() is NO_ACTION
    assert seen == [True, True, True]


Steps = list[tuple[str, Any]]


def perform(generator: Any, steps: Steps) -> list[object]:
    """Do to a generator what ``steps`` says, and return what came of each."""
    seen: list[object] = []
    for operation, argument in steps:
        try:
            seen.append(getattr(generator, operation)(*([] if operation == "close" else [argument])))
        except BaseException as raised:
            seen.append((type(raised), getattr(raised, "value", None), str(raised)))
    while generator.gi_frame is not None:  # what is left suspended would complain when it is collected
        with contextlib.suppress(RuntimeError, ValueError):
            generator.close()
    return seen


def stubborn(ending: str) -> Generator[object, object, str]:
    """Answer every kind of exception, and end in various ways."""
    received: object = None
    for number in range(4):
        try:
            received = yield (number, received)
        except KeyError:
            received = "caught"
        except GeneratorExit:
            if ending == "return":
                return "left"
            if ending == "ignore":
                yield "ignored"
            if ending == "other":
                raise ValueError("instead") from None
            raise
    return "finished"


operations = (
    st.tuples(st.just("send"), st.integers())
    | st.tuples(
        st.just("throw"), st.sampled_from([KeyError, ValueError, GeneratorExit, StopIteration]).map(lambda e: e())
    )
    | st.tuples(st.just("close"), st.none())
)


@settings(max_examples=300)
@given(st.lists(operations, max_size=7), st.sampled_from(["return", "ignore", "other", "raise"]))
def test_a_decorated_generator_does_whatever_the_plain_one_does(steps: Steps, ending: str) -> None:
    with record_metrics(strict=True):
        decorated = action_tracking_decorator("stream_llm_call")(stubborn)
        steps = [("send", None), *steps]
        assert perform(decorated(ending), steps) == perform(stubborn(ending), steps)


def test_a_suspended_generator_keeps_nothing_that_passed_through_it(backend: ListBackend) -> None:
    class Chunk: ...

    @action_tracking_decorator("stream_llm_call")
    def stream() -> Generator[Chunk | None, Chunk | None, None]:
        yield Chunk()
        yield None

    steps = stream()
    gone = weakref.ref(next(steps))
    assert gone() is None
    sent = Chunk()
    steps.send(sent)
    gone = weakref.ref(sent)
    del sent
    assert gone() is None


def test_methods_class_methods_and_static_methods_work_in_either_order(backend: ListBackend) -> None:
    class Bot:
        @action_tracking_decorator("method_handler")
        def method(self, number: int) -> tuple[object, int]:
            return self, number

        @action_tracking_decorator("class_handler")
        @classmethod
        def above(cls, number: int) -> tuple[object, int]:
            return cls, number

        @classmethod
        @action_tracking_decorator("class_handler")
        def below(cls, number: int) -> tuple[object, int]:
            return cls, number

        @action_tracking_decorator("static_handler")
        @staticmethod
        def static(number: int) -> int:
            return number

        half = action_tracking_decorator("partial_handler")(functools.partialmethod(method, 5))

    bot = Bot()
    assert bot.method(1) == (bot, 1)
    assert Bot.above(2) == (Bot, 2)
    assert bot.below(3) == (Bot, 3)
    assert bot.static(4) == 4
    assert bot.half() == (bot, 5)
    assert isinstance(inspect.getattr_static(Bot, "above"), classmethod)
    assert isinstance(inspect.getattr_static(Bot, "static"), staticmethod)
    assert [name for name, _ in backend.calls] == [
        "method_handler",
        "class_handler",
        "class_handler",
        "static_handler",
        "method_handler",
        "partial_handler",
    ]


def test_a_bound_method_stays_one(backend: ListBackend) -> None:
    target = CallableObject()
    decorated = action_tracking_decorator("menu_handler")(target.__call__)
    assert inspect.ismethod(decorated)
    assert decorated.__self__ is target
    assert decorated(2) == 2
    assert backend.calls == [("menu_handler", 2), ("menu_handler", "ok")]


@pytest.mark.parametrize("target", [plain, coroutine])
def test_a_partial_stays_one(backend: ListBackend, target: Callable[..., Any]) -> None:
    original = functools.partial(target, 6)
    original.note = "kept"  # type: ignore[attr-defined]
    decorated = action_tracking_decorator("menu_handler")(original)
    assert isinstance(decorated, functools.partial)
    assert decorated.args == (6,)
    assert decorated.note == "kept"  # type: ignore[attr-defined]
    assert inspect.signature(decorated) == inspect.signature(original)
    assert inspect.iscoroutinefunction(decorated) == inspect.iscoroutinefunction(original)
    result = decorated()
    assert (asyncio.run(result) if inspect.isawaitable(result) else result) == 6  # type: ignore[arg-type]
    assert backend.calls == [("menu_handler", 6), ("menu_handler", "ok")]


def test_a_partial_keeps_its_keywords() -> None:
    def given(self: object, **keywords: int) -> dict[str, int]:
        return keywords

    decorate = action_tracking_decorator("menu_handler")

    class Bot:
        method = decorate(functools.partialmethod(given, one=1))

    assert decorate(functools.partial(given, None, one=1))(two=2) == {"one": 1, "two": 2}
    assert Bot().method(two=2) == {"one": 1, "two": 2}


def test_a_partial_of_a_class_counts_its_construction(backend: ListBackend) -> None:
    decorated = action_tracking_decorator("build_task")(functools.partial(CallableObject))
    assert isinstance(decorated(), CallableObject)
    assert backend.calls == [("build_task", "ok")]
    assert decorated.func.__name__ == "CallableObject"
    assert not hasattr(decorated.func, "kind")


@pytest.mark.parametrize("method", ["sync", "stream", "later", "async_stream"])
def test_a_partial_of_a_bound_method_is_tracked_as_the_method_is(backend: ListBackend, method: str) -> None:
    class Bot:
        def sync(self, number: int) -> int:
            raise ValueError(number)

        def stream(self, number: int) -> Iterator[int]:
            yield number
            raise ValueError(number)

        async def later(self, number: int) -> int:
            await asyncio.sleep(0)
            raise ValueError(number)

        async def async_stream(self, number: int) -> AsyncIterator[int]:
            yield number
            raise ValueError(number)

    async def consume(result: Any) -> None:
        if inspect.isawaitable(result):
            await result
        elif inspect.isasyncgen(result):
            async for _ in result:
                pass
        else:
            list(result)

    decorated = action_tracking_decorator("menu_handler")(functools.partial(getattr(Bot(), method), 3))
    with pytest.raises(ValueError, match="3"):
        asyncio.run(consume(decorated()))
    assert backend.calls == [("menu_handler", "error")]


def test_a_callable_object_stays_what_it_was(backend: ListBackend) -> None:
    target = CallableObject()
    decorated = action_tracking_decorator("menu_handler")(target)
    assert decorated(8) == 8
    assert backend.calls == [("menu_handler", 8), ("menu_handler", "ok")]
    assert isinstance(decorated, CallableObject)
    assert decorated.calls == target.calls == 1
    decorated.calls = 5
    assert target.calls == 5
    del decorated.calls
    assert not hasattr(target, "calls")
    assert inspect.signature(decorated) == inspect.signature(target)
    assert inspect.signature(decorated.__call__) == inspect.signature(target.__call__)
    assert not hasattr(decorated.__call__, "calls")
    assert inspect.getdoc(decorated) == "A callable with a state."
    assert repr(decorated) == repr(target)
    assert dir(decorated) == dir(target)
    assert callable(decorated)

    class Other(CallableObject):
        pass

    decorated.__class__ = Other
    assert type(target) is Other


def test_an_object_with_an_async_call_is_timed_until_it_is_done(backend: ListBackend) -> None:
    decorated = action_tracking_decorator("answer_llm_call")(AsyncCallable())
    assert inspect.iscoroutinefunction(decorated.__call__)
    assert asyncio.run(decorated(9)) == 9
    assert backend.calls == [("answer_llm_call", 9), ("answer_llm_call", "ok")]


def test_a_cached_function_keeps_its_cache_and_binds_as_a_method(backend: ListBackend) -> None:
    class Bot:
        @action_tracking_decorator("menu_handler")
        @functools.lru_cache
        def menu(self, number: int) -> int:
            return number

    bot = Bot()
    assert bot.menu(1) == bot.menu(1) == 1
    assert Bot.menu.cache_info().hits == 1
    assert Bot.menu(bot, 1) == 1
    assert len(backend.calls) == 3
    assert bot.menu.__func__ is Bot.menu  # type: ignore[attr-defined] # and not one made anew for each call


def test_two_decorators_on_an_async_object_both_time_it_to_the_end(backend: ListBackend) -> None:
    class Failing:
        async def __call__(self) -> None:
            await asyncio.sleep(0)
            raise ValueError

    once = action_tracking_decorator("inner_handler")(Failing())
    twice = action_tracking_decorator("outer_handler")(once)
    assert inspect.iscoroutinefunction(twice.__call__)
    with pytest.raises(ValueError):  # noqa: PT011 - it has no words
        asyncio.run(twice())
    assert backend.calls == [("inner_handler", "error"), ("outer_handler", "error")]


class Comparable:
    """A callable that compares, hashes and copies by its value, and is false when that is 0."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparable) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)


def test_a_callable_object_compares_copies_pickles_and_dies_as_it_did(backend: ListBackend) -> None:
    decorate = action_tracking_decorator("menu_handler")
    one = decorate(Comparable(1))
    assert one == Comparable(1) == one == decorate(Comparable(1)) != decorate(Comparable(2))
    assert hash(one) == hash(Comparable(1))
    assert (bool(one), bool(decorate(Comparable(0)))) == (True, False)
    for twin in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin == one
        assert twin() == 1
    assert backend.calls == [("menu_handler", "ok")] * 3
    gone = weakref.ref(one)
    del one, twin
    gc.collect()
    assert gone() is None


def test_objects_that_look_at_each_others_types_compare_as_they_did() -> None:
    class Strict:
        def __call__(self) -> None: ...

        def __eq__(self, other: object) -> bool:
            return type(other) is Strict

        __hash__ = object.__hash__

    decorate = action_tracking_decorator("menu_handler")
    assert decorate(Strict()) == decorate(Strict())
    assert decorate(Strict()) == Strict()
    assert decorate(Strict()) != 5


def test_what_is_shared_with_a_callable_object_is_so_in_a_deep_copy() -> None:
    target = CallableObject()
    target.shared = []  # type: ignore[attr-defined]
    decorated = action_tracking_decorator("menu_handler")(target)
    twin, shared = copy.deepcopy((decorated, decorated.shared))  # type: ignore[attr-defined]
    assert twin.shared is shared is not decorated.shared  # type: ignore[attr-defined]


@action_tracking_decorator("menu_handler")
@functools.lru_cache
def cached_at_module_level(number: int) -> int:
    return number


def test_what_is_pickled_by_its_name_still_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, types.ModuleType(__name__)))
    monkeypatch.setattr(sys.modules[__name__], "cached_at_module_level", cached_at_module_level, raising=False)
    assert pickle.loads(pickle.dumps(cached_at_module_level)) is cached_at_module_level


def test_an_object_keeps_its_own_private_attributes() -> None:
    target = CallableObject()
    target._name = "mine"  # type: ignore[attr-defined]
    decorated = action_tracking_decorator("menu_handler")(target)
    assert decorated._name == "mine"  # type: ignore[attr-defined]


def test_an_object_with_a_binding_of_its_own_keeps_it(backend: ListBackend) -> None:
    class Binding:
        owner: type = object
        name = ""

        def __set_name__(self, owner: type, name: str) -> None:
            self.owner, self.name = owner, name

        def __call__(self, *arguments: object) -> object:
            return arguments

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            if instance is None:
                return self
            return functools.partial(self, "bound") if instance != "data" else 5

    class Bot(str):
        __slots__ = ()
        method = action_tracking_decorator("menu_handler")(Binding())

    assert Bot("x").method(1) == ("bound", 1)
    assert backend.calls == [("menu_handler", "ok")]
    assert Bot("data").method == 5
    assert Bot.method(2) == (2,)
    assert (Bot.method.owner, Bot.method.name) == (Bot, "method")


def test_a_mock_that_poses_as_a_function_can_be_decorated(backend: ListBackend) -> None:
    mock = unittest.mock.Mock(spec=plain, return_value=7)
    assert action_tracking_decorator("menu_handler")(mock)(1) == 7
    mock.assert_called_once_with(1)
    assert backend.calls == [("menu_handler", "ok")]


def test_a_builtin_function_can_be_decorated(backend: ListBackend) -> None:
    assert action_tracking_decorator("count_task")(len)([1, 2]) == 2
    assert backend.calls == [("count_task", "ok")]


def test_a_generator_based_coroutine_can_still_be_awaited(backend: ListBackend) -> None:
    @action_tracking_decorator("answer_llm_call")
    @types.coroutine
    def old_style() -> Generator[None, None, int]:
        yield
        return 3

    async def main() -> int:
        return await old_style()

    assert asyncio.run(main()) == 3
    assert backend.calls == [("answer_llm_call", "ok")]


def test_a_function_marked_as_coroutine_function_is_awaited(backend: ListBackend) -> None:
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        return  # came with Python 3.12

    @mark  # type: ignore[untyped-decorator]
    def marked(number: int) -> Awaitable[int]:
        return coroutine(number)

    decorated = action_tracking_decorator("answer_llm_call")(marked)
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(decorated(3)) == 3
    assert backend.calls == [("answer_llm_call", 3), ("answer_llm_call", "ok")]


def test_a_function_keeps_its_attributes() -> None:
    def handler() -> None: ...

    handler.flags = {"chat": 1}  # type: ignore[attr-defined]
    assert action_tracking_decorator("menu_handler")(handler).flags == {"chat": 1}  # type: ignore[attr-defined]


def test_forgotten_parentheses_are_an_error_that_shows_the_right_call() -> None:
    with pytest.raises(TypeError, match=r'not the function plain.*@action_tracking_decorator\("menu_handler"\)'):
        action_tracking_decorator(plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (CallableObject, "above the class CallableObject; put it above the methods to track, such as __call__$"),
        (5, "needs a function, not 5$"),
        (property(plain), "; put it below @property, above the function$"),
        (functools.cached_property(plain), "; put it below @cached_property, above the function$"),
    ],
)
def test_what_cannot_be_tracked_is_an_error_at_once(target: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        action_tracking_decorator("menu_handler")(target)


def test_a_class_in_place_of_a_name_is_called_one() -> None:
    with pytest.raises(TypeError, match="not the class CallableObject"):
        action_tracking_decorator(CallableObject)  # type: ignore[arg-type]


def test_a_decorator_with_an_empty_name_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="empty"):
        action_tracking_decorator("")
