"""``action_tracking_decorator``: the same tracker around every kind of callable, each of which stays what it was.

A wrapper enters ``action_tracking(name)`` when it is called, never before: decorators run at import, when nothing is
configured yet. Generators are the one kind whose body runs in steps, between which other code has its turn, so their
wrappers make the tracker current for the length of a step only.
"""

import copy
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from functools import cached_property, partial, partialmethod, wraps
from pkgutil import resolve_name
from typing import Any, Protocol, TypeVar, cast

from llm_common.dispatch import check_name
from llm_common.tracker import get_current, set_current
from llm_common.tracking import action_tracking

MARK = "_llm_common_name"
"""The attribute by which what is decorated tells the name of its action."""

Trackable = TypeVar(
    "Trackable",
    bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any] | partialmethod[Any]",
)


class ActionDecorator(Protocol):
    """What ``action_tracking_decorator(name)`` returns: it gives back what it was given, of the same type."""

    def __call__(self, function: Trackable, /) -> Trackable:
        """Return ``function``, tracked."""


def action_tracking_decorator(name: str) -> ActionDecorator:
    """Track every call of a function: ``@action_tracking_decorator("answer_llm_call")``.

    Takes functions, coroutine functions, generator and async generator functions, methods, class and static methods,
    :func:`functools.partial` and callable objects; each keeps its kind, signature, name and docstring. A call is one
    action, as with :func:`~llm_common.action_tracking`; a generator is one action from its first step to its end.
    Inside, :func:`~llm_common.current_action` returns the live tracker.

    Raises :class:`TypeError` where ``name`` isn't a string (the parentheses were forgotten) or where what stands below
    isn't callable or is a class, and :class:`ValueError` where the name is empty.
    """
    check_name(name)

    def decorate(function: Trackable, /) -> Trackable:
        return cast("Trackable", tracked(name, function))

    return decorate


def tracked(name: str, target: Any) -> Any:
    """Return ``target``, a callable or a method descriptor, such that each call is one action ``name``."""
    if isinstance(target, staticmethod | classmethod):
        return type(target)(tracked(name, target.__func__))
    if type(target) is partial:
        function = target.func
        # A class may stand here, since what is tracked is a call that constructs.
        inner = function_wrapper(name, function) if isinstance(function, type) else tracked(name, function)
        rebuilt = partial(inner, *target.args, **target.keywords)
        rebuilt.__dict__.update(target.__dict__)
        return rebuilt
    if isinstance(target, partialmethod):
        return partialmethod(tracked(name, target.func), *target.args, **target.keywords)
    if isinstance(target, types.MethodType):
        return types.MethodType(tracked(name, target.__func__), target.__self__)
    if isinstance(target, type):
        raise TypeError(
            f"@action_tracking_decorator({name!r}) stands above the class {target.__name__}; "
            "put it above the methods to track, such as __call__"
        )
    if not callable(target):
        descriptor = isinstance(target, property | cached_property)
        hint = f"; put it below @{type(target).__name__}, above the function" if descriptor else ""
        raise TypeError(f"@action_tracking_decorator({name!r}) needs a function, not {target!r:.200}{hint}")
    return tracked_callable(name, target)


def tracked_callable(name: str, target: Any) -> Any:
    """Return a function that tracks ``target``, or a proxy where ``target`` is an object with more than a call."""
    if issubclass(type(target), types.FunctionType):  # isinstance() would believe a mock that poses as one
        return wrapper_of(name, target, target)
    proxy = BoundCallableProxy if hasattr(type(target), "__get__") else CallableProxy
    return proxy(name, target, wrapper_of(name, target, target.__call__))


def wrapper_of(name: str, target: Any, body: Any) -> Any:
    """Return the wrapper for ``target`` whose kind, in the eyes of :mod:`inspect`, is that of ``body``."""
    if inspect.isasyncgenfunction(body):
        return async_generator_wrapper(name, target)
    if inspect.iscoroutinefunction(body) or is_marked_coroutine(target):
        return coroutine_wrapper(name, target)
    if inspect.isgeneratorfunction(body):
        wrapper = generator_wrapper(name, target)
        if body.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:  # @types.coroutine: awaitable as well
            return types.coroutine(wrapper)
        return wrapper
    return function_wrapper(name, target)


def is_marked_coroutine(target: Any) -> bool:
    """Return whether an object was marked as coroutine function, as :func:`inspect.markcoroutinefunction` does."""
    try:
        return inspect.iscoroutinefunction(target)
    except TypeError:  # a mock that poses as a function has no code to look at
        return False


def like(target: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a wrapper the name, docstring and signature of ``target``.

    An object's wrapper gets the signature alone: it is seen only through a proxy, which has the rest.
    """
    if issubclass(type(target), types.FunctionType):
        return wraps(target)
    if isinstance(target, type):
        return wraps(target, updated=())
    return wraps(target, assigned=(), updated=())


def function_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a plain function."""

    @like(target)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return action_tracking(name)._run(target, args, kwargs)

    return marked(wrapper, name)


def coroutine_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a coroutine function; the action begins when the coroutine is first awaited."""

    @like(target)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with action_tracking(name) as _:  # named, so that it can be found from the frame
            return await target(*args, **kwargs)

    return marked(wrapper, name)


def generator_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a generator function, passing on ``send``, ``throw``, ``close`` and the result as PEP 380 has it."""

    @like(target)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        before = get_current()
        with action_tracking(name) as tracker:
            set_current(before)
            step = tracker._step()
            generator = target(*args, **kwargs)
            resume: Callable[[Any], Any] = generator.send
            # What passes through is kept in no variable, which would keep it alive until the next step.
            passing: list[Any] = [None]
            streamed = False
            while True:
                try:
                    with step:
                        passing.append(resume(passing.pop()))
                except StopIteration as stop:
                    return stop.value
                if not streamed:
                    streamed = True
                    tracker.first_item()
                try:
                    passing.append((yield passing.pop()))
                    resume = generator.send
                except BaseException as thrown:
                    passing.append(thrown)
                    resume = generator.throw

    return marked(wrapper, name)


def async_generator_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an async generator function, passing on ``asend``, ``athrow`` and ``aclose``.

    It repeats the steps of :func:`generator_wrapper` with ``await`` in them: Python has no way to write both at once.
    """

    @like(target)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        before = get_current()
        with action_tracking(name) as tracker:
            set_current(before)
            step = tracker._step()
            generator = target(*args, **kwargs)
            resume: Callable[[Any], Any] = partial(first_step, generator)
            passing: list[Any] = [None]
            streamed = False
            while True:
                try:
                    with step:
                        passing.append(await resume(passing.pop()))
                except StopAsyncIteration:
                    return
                if not streamed:
                    streamed = True
                    tracker.first_item()
                try:
                    passing.append((yield passing.pop()))
                    resume = generator.asend
                except BaseException as thrown:
                    passing.append(thrown)
                    resume = generator.athrow

    return marked(wrapper, name)


def marked(wrapper: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return ``wrapper`` with the name of its action, for :func:`tracked_name`.

    It stands in the function's dictionary, which :func:`functools.wraps` hands on: decorators further out have it too.
    """
    wrapper.__dict__[MARK] = name
    return wrapper


def tracked_name(target: Any) -> str | None:
    """Return the name of the action as which a callable is decorated already, or ``None``: so nothing counts twice.

    Methods, :func:`functools.partial` and decorators made with :func:`functools.wraps` are looked through.
    """
    seen: set[int] = set()
    while target is not None and id(target) not in seen:
        seen.add(id(target))
        name = getattr(target, MARK, None)  # methods and proxies have the attributes of what they stand for
        if isinstance(name, str):
            return name
        inside = target.func if isinstance(target, partial | partialmethod) else target
        target = getattr(target, "__wrapped__", None) if inside is target else inside
    return None


def first_step(generator: AsyncGenerator[Any, Any], value: Any) -> Any:
    """Return the first step of an async generator without telling the event loop of it.

    A loop closes every generator that it knows when it ends. It knows the wrapper, which closes this one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(value)
    finally:
        sys.set_asyncgen_hooks(*hooks)


class CallableProxy:
    """Stands for a callable object: the call is tracked, everything else is the object's own."""

    __slots__ = ("__weakref__", "__wrapped__", "_llm_common_name", "_llm_common_tracked")

    def __init__(self, name: str, wrapped: Any, wrapper: Callable[..., Any]) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)
        object.__setattr__(self, "_llm_common_name", name)
        object.__setattr__(self, "_llm_common_tracked", wrapper)

    @property
    def __call__(self) -> Callable[..., Any]:
        """The tracked call: a property, so that ``iscoroutinefunction(proxy.__call__)`` answers for the object."""
        return cast("Callable[..., Any]", self._llm_common_tracked)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.__wrapped__)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return cast("str | None", self.__wrapped__.__doc__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)

    def __dir__(self) -> list[str]:
        return dir(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __eq__(self, other: object) -> bool:
        return bool(self.__wrapped__ == (other.__wrapped__ if type(other) is type(self) else other))

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __bool__(self) -> bool:
        return bool(self.__wrapped__)

    def __set_name__(self, owner: type, name: str) -> None:
        tell = getattr(type(self.__wrapped__), "__set_name__", None)
        if tell is not None:
            tell(self.__wrapped__, owner, name)

    def __copy__(self) -> Any:
        return tracked(self._llm_common_name, copy.copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return tracked(self._llm_common_name, copy.deepcopy(self.__wrapped__, memo))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced = self.__wrapped__.__reduce_ex__(protocol)
        if isinstance(reduced, str):  # known by its name in its module, where the proxy stands now
            return resolve_name, (f"{self.__wrapped__.__module__}:{reduced}",)
        return tracked, (self._llm_common_name, self.__wrapped__)


class BoundCallableProxy(CallableProxy):
    """A :class:`CallableProxy` for an object that binds to instances as functions do, such as one of ``lru_cache``."""

    __slots__ = ()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        bound = self.__wrapped__.__get__(instance, owner)
        if bound is self.__wrapped__:
            return self
        if type(bound) is types.MethodType and bound.__func__ is self.__wrapped__:
            return types.MethodType(self, bound.__self__)
        return tracked(self._llm_common_name, bound) if callable(bound) else bound
