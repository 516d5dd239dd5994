"""``action_tracking_decorator``: the same tracker around every kind of callable, each of which stays what it was.

A wrapper enters ``action_tracking(name)`` when it is called, never before: decorators run at import, when nothing is
configured yet. Generators are the one kind whose body runs in steps, between which other code has its turn, so their
wrappers make the tracker current for the length of a step only.
"""

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from functools import cached_property, partial, partialmethod, wraps
from typing import Any, Protocol, TypeVar, cast

from llm_common.dispatch import check_name
from llm_common.tracker import get_current, set_current
from llm_common.tracking import action_tracking

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
        rebuilt = partial(tracked_callable(name, target.func), *target.args, **target.keywords)
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
    if isinstance(target, types.FunctionType):
        return wrapper_of(name, target, target)
    if isinstance(target, type):  # below a partial alone: a call that constructs
        return wrapper_of(name, target, type.__call__)
    proxy = BoundCallableProxy if hasattr(type(target), "__get__") else CallableProxy
    return proxy(target, wrapper_of(name, target, type(target).__call__))


def wrapper_of(name: str, target: Any, body: Any) -> Any:
    """Return the wrapper for ``target`` whose kind, in the eyes of :mod:`inspect`, is that of ``body``."""
    if inspect.isasyncgenfunction(body):
        return async_generator_wrapper(name, target)
    if inspect.iscoroutinefunction(body) or inspect.iscoroutinefunction(target):
        return coroutine_wrapper(name, target)
    if inspect.isgeneratorfunction(body):
        wrapper = generator_wrapper(name, target)
        if body.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:  # @types.coroutine: awaitable as well
            return types.coroutine(wrapper)
        return wrapper
    return function_wrapper(name, target)


def like(target: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return :func:`functools.wraps` for ``target``; only a function's attributes are copied, not an object's state."""
    return wraps(target, updated=("__dict__",) if isinstance(target, types.FunctionType) else ())


def function_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a plain function."""

    @like(target)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return action_tracking(name)._run(target, args, kwargs)

    return wrapper


def coroutine_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a coroutine function; the action begins when the coroutine is first awaited."""

    @like(target)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with action_tracking(name) as _:  # named, so that it can be found from the frame
            return await target(*args, **kwargs)

    return wrapper


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
            value: Any = None
            while True:
                try:
                    with step:
                        item = resume(value)
                except StopIteration as stop:
                    return stop.value
                try:
                    value = yield item
                    resume = generator.send
                except GeneratorExit:
                    with step:
                        generator.close()
                    raise
                except BaseException as thrown:
                    value, resume = thrown, generator.throw

    return wrapper


def async_generator_wrapper(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an async generator function, passing on ``asend``, ``athrow`` and ``aclose``."""

    @like(target)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        before = get_current()
        with action_tracking(name) as tracker:
            set_current(before)
            step = tracker._step()
            generator = target(*args, **kwargs)
            resume: Callable[[Any], Any] = generator.asend
            value: Any = None
            while True:
                try:
                    with step:
                        item = await resume(value)
                except StopAsyncIteration:
                    return
                try:
                    value = yield item
                    resume = generator.asend
                except GeneratorExit:
                    with step:
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    value, resume = thrown, generator.athrow

    return wrapper


class CallableProxy:
    """Stands for a callable object: the call is tracked, everything else is the object's own."""

    __slots__ = ("__wrapped__", "_tracked")

    def __init__(self, wrapped: Any, wrapper: Callable[..., Any]) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)
        object.__setattr__(self, "_tracked", wrapper)

    @property
    def __call__(self) -> Callable[..., Any]:
        """The tracked call: a property, so that ``iscoroutinefunction(proxy.__call__)`` answers for the object."""
        return cast("Callable[..., Any]", self._tracked)

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


class BoundCallableProxy(CallableProxy):
    """A :class:`CallableProxy` for an object that binds to instances as functions do, such as one of ``lru_cache``."""

    __slots__ = ()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)
