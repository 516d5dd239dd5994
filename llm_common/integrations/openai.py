"""LLM calls of the OpenAI SDK as actions: ``track_client(OpenAI())``.

A call is one action from the moment that it is sent to the last chunk of its answer. The HTTP requests beneath it, with
the repetitions of the SDK, are counted by :mod:`llm_common.integrations.httpx2`.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Self, TypeVar

from openai import AsyncAPIResponse, AsyncOpenAI, AsyncStream, OpenAI, Stream

from llm_common.decorator import marked, tracked_name
from llm_common.dispatch import check_name
from llm_common.integrations.open_action import OpenAction, covering

Client = TypeVar("Client", bound=OpenAI | AsyncOpenAI)

LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
"""The events after which the Responses API says nothing more."""
FAILED_EVENTS = frozenset({"response.failed", "error"})
"""Those by which it tells that the call failed, without any exception."""


def track_client(client: Client, name: str = "answer_llm_call") -> Client:
    """Track each LLM call of ``client`` as the action ``name``, and return the client.

    Calls are ``create``, ``parse`` and ``stream`` of ``chat.completions`` and ``responses``, and ``create`` of
    ``completions``; through ``with_raw_response`` and ``with_streaming_response`` too, and in the clients that
    ``copy()`` and ``with_options()`` make of this one. What the SDK sends and returns is what it was. A stream is
    tracked until its last chunk; one that is left before is ``cancelled``.

    Nothing else is counted: no embeddings, no realtime connections. Tracking a client again changes nothing. Raises
    :class:`TypeError` for what is no client of the SDK or where ``name`` isn't a string, :class:`ValueError` where the
    name is empty.
    """
    check_name(name)
    if not isinstance(client, OpenAI | AsyncOpenAI):
        raise TypeError(f"track_client() takes an OpenAI or AsyncOpenAI client, not {client!r:.100}")
    tracked = _tracked_async if isinstance(client, AsyncOpenAI) else _tracked
    # Not the classes are changed but these objects, which the client makes once and keeps.
    resources = (client.chat.completions, client.beta.chat.completions, client.responses, client.completions)
    for resource in resources:
        for method in ("create", "parse"):
            call = getattr(resource, method, None)
            if call is not None and tracked_name(call) is None:
                setattr(resource, method, tracked(call, name))
    for owner in (client, client.chat, client.beta, client.beta.chat, *resources):
        for view in ("with_raw_response", "with_streaming_response"):
            vars(owner).pop(view, None)  # made of the methods as they were; the next use makes it anew
    for method in ("copy", "with_options"):
        copy = getattr(client, method)
        if tracked_name(copy) is None:
            setattr(client, method, _tracked_copy(copy, name))
    return client


def _tracked_copy(copy: Callable[..., Client], name: str) -> Callable[..., Client]:
    @wraps(copy)
    def tracked_copy(*args: Any, **kwargs: Any) -> Client:
        return track_client(copy(*args, **kwargs), name)

    return marked(tracked_copy, name)


def _tracked(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        action = Call(name)
        try:
            answer = method(*args, **kwargs)
        except BaseException as exception:
            action.failed(exception)
            raise
        return action.answered(answer)

    return marked(call, name)


def _tracked_async(method: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Any]:
    async def awaited(answer: Awaitable[Any]) -> Any:
        action = Call(name)
        try:
            answered = await answer
        except BaseException as exception:
            action.failed(exception)
            raise
        return action.answered(answered)

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:  # no coroutine function, as the SDK's own isn't one
        try:
            answer = method(*args, **kwargs)
        except BaseException as exception:  # an argument is missing
            Call(name).failed(exception)
            raise
        return awaited(answer)

    return marked(call, name)


class Call(OpenAction):
    """An LLM call under way, whose answer may be yet to come.

    It is no action of its own where a framework counts the same call, which is only told of what it can't see itself.
    """

    __slots__ = ("_above", "_complete", "_inside")

    def __init__(self, name: str) -> None:
        self._complete = False
        """Whether the model has said all, even if the stream isn't read to its end."""
        self._inside = 0
        """How many steps of the SDK are under way, which close responses themselves."""
        self._above = covering()
        """The action as which a framework counts the same call."""
        super().__init__(name)

    def begin(self, name: str) -> None:
        """Begin the action, unless the call is counted already."""
        if self._above is None:
            super().begin(name)

    def first_item(self) -> None:
        """Tell that the first item of a stream is there; not every framework does."""
        if self._above is not None:
            self._above.first_item()
        super().first_item()

    def answered(self, answer: Any) -> Any:
        """Take what the SDK returns, and return it: the whole answer, a stream, or a response yet to be parsed."""
        if isinstance(answer, Stream | AsyncStream):
            self.watch_stream(answer)
        elif hasattr(answer, "http_response"):  # of with_raw_response or with_streaming_response
            self._watch_response(answer)
        else:
            self._read(answer)
            self.end()
        return answer

    def failed(self, exception: BaseException) -> None:
        """End the call by an exception; one about an answer that is too long has the answer."""
        if self._above is not None and not isinstance(exception, Exception):
            self._above.uncover()  # of a cancellation not every framework tells
        self._read(getattr(exception, "completion", None))
        self.end(exception)

    def closed(self) -> None:
        """Take note that the response is closed, unless it is the SDK that closes what it has read."""
        if not self._inside:
            self.cancel()

    def cancel(self) -> None:
        """End the call where nobody reads on, which is a cancellation only as long as the model has more to say."""
        if self._complete:
            self.end()
        else:
            super().cancel()

    def took(self, item: Any) -> Any:
        """Take a chunk or an event of a stream, and return it."""
        with suppress(Exception):  # the SDK checks no answer, so that anything may be in it
            event = getattr(item, "type", None)
            if says_something(event, getattr(item, "choices", None)):
                self.first_item()
            if event in LAST_EVENTS:
                self._complete = True
                if event in FAILED_EVENTS:
                    self.fail(event)
            elif any(getattr(choice, "finish_reason", None) for choice in getattr(item, "choices", None) or ()):
                self._complete = True
        self._read(getattr(item, "response", item))
        return item

    def _read(self, answer: Any) -> None:
        """Take the tokens from an answer as a whole, or from a chunk that has them."""
        if getattr(answer, "status", None) == "failed":
            self.fail("response.failed")
        usage = getattr(answer, "usage", None)
        if usage is not None:
            given = getattr(usage, "prompt_tokens", None) or getattr(usage, "input_tokens", None)
            said = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None)
            self.used(getattr(answer, "model", None), given, said)

    def watch_stream(self, stream: Any) -> None:
        """Be told of each item of a stream, and of its end."""
        # Private, but the one place through which a stream's items come, however it is read: a subclass or a wrapper
        # would be another type, and what closes a stream, or its helper, closes the response alone.
        stream._iterator = Items(self, stream._iterator)
        self._watch_close(stream.response)

    def _watch_response(self, raw: Any) -> None:
        """Watch a response whose body the caller reads, in one way or another."""
        response = raw.http_response
        if response.is_closed:  # it was read whole
            with suppress(ValueError):  # where it is no JSON, as the caller may find out too
                self._read(Fields(response.json()))
            self.end()
            return
        self._watch_close(response)
        for method in ("iter_raw", "aiter_raw"):  # through which every other way of reading goes
            _replace(response, method, self, _reading)
        _replace(raw, "parse", self, _aparsing if isinstance(raw, AsyncAPIResponse) else _parsing)

    def _watch_close(self, response: Any) -> None:
        _replace(response, "close", self, _closing)
        _replace(response, "aclose", self, _aclosing)

    def parsed(self, answer: Any) -> Any:
        """Take what a response was parsed into, and return it; what is no stream was read whole."""
        if isinstance(answer, Stream | AsyncStream):
            if not isinstance(answer._iterator, Items):  # parsed for the first time
                self.watch_stream(answer)
        else:
            self._read(answer)
            self.end()
        return answer


def says_something(event: str | None, choices: Any) -> bool:
    """Return whether a chunk or an event has anything of the answer in it.

    Those that come first say that an answer is about to come: ``response.created`` and its like, or a chunk that has
    the role of who speaks and an empty text.
    """
    if event is not None:
        return event.endswith((".delta", ".done", ".completed")) or event in LAST_EVENTS
    return any(
        getattr(choice, "text", None) or any(value for name, value in choice.delta if name != "role")
        for choice in choices or ()
    )


class Fields:
    """The fields of a JSON object as attributes."""

    def __init__(self, fields: Any) -> None:
        self._fields = fields if isinstance(fields, dict) else {}

    def __getattr__(self, name: str) -> Any:
        value = self._fields.get(name)
        return Fields(value) if isinstance(value, dict) else value


class Step:
    """One step of the SDK within a call, such as the next item of a stream; the outermost of them ends the call."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call._inside += 1

    def __exit__(self, exc_type: type[BaseException] | None, exception: BaseException | None, _: object) -> None:
        call = self._call
        call._inside -= 1
        if exception is None or call._inside:
            return
        if isinstance(exception, StopIteration | StopAsyncIteration):
            call.end()
        else:
            call.failed(exception)


class Parts:
    """The parts of a body, each of which is read in a step of its call."""

    __slots__ = ("_call", "_parts")

    def __init__(self, call: Call, parts: Any) -> None:
        self._call = call
        self._parts = parts

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with Step(self._call):
            return next(self._parts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        with Step(self._call):
            return await anext(self._parts)

    def __getattr__(self, name: str) -> Any:  # aclose() and whatever else generators have
        return getattr(self._parts, name)


class Items(Parts):
    """The items of a stream, of each of which its call is told."""

    __slots__ = ()

    def __next__(self) -> Any:
        return self._call.took(super().__next__())

    async def __anext__(self) -> Any:
        return self._call.took(await super().__anext__())


def _replace(target: Any, name: str, call: Call, method: Callable[..., Any]) -> None:
    """Give an object a method of its own, which is given the call and the method that it stands for."""
    original = getattr(target, name)

    @wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        return method(call, original, *args, **kwargs)

    setattr(target, name, replaced)


def _closing(call: Call, close: Callable[[], None]) -> None:
    try:
        close()
    finally:
        call.closed()


async def _aclosing(call: Call, close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    finally:
        call.closed()


def _reading(call: Call, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Parts:
    return Parts(call, read(*args, **kwargs))


def _parsing(call: Call, parse: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with Step(call):
        answer = parse(*args, **kwargs)
    return call.parsed(answer)


async def _aparsing(call: Call, parse: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with Step(call):
        answer = await parse(*args, **kwargs)
    return call.parsed(answer)
