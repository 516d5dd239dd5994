"""Actions and HTTP metrics for bots that are made with python-telegram-bot 22.

``track_handlers(application)`` makes each call of a handler and of a job one action, named after its function;
``ApplicationBuilder().request(TrackedRequest())`` counts the bot's own requests.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

import httpx
from telegram.ext import (
    Application,
    ApplicationHandlerStop,
    BaseHandler,
    CallbackContext,
    ContextTypes,
    ConversationHandler,
    Job,
)
from telegram.request import HTTPXRequest

from llm_common.action_names import HANDLER, TASK
from llm_common.decorator import CallableProxy
from llm_common.dispatch import check_name
from llm_common.http_labels import TELEGRAM
from llm_common.integrations.client_attempt import ClientAttempt
from llm_common.integrations.handler_actions import HandlerAction, action_name
from llm_common.integrations.httpx_transport import RequestStream, ResponseStream

Callback = Callable[..., Any]


def track_handlers(
    application: "Application[Any, Any, Any, Any, Any, Any]",
    *,
    names: Mapping[Callback, str] | None = None,
    exclude: Iterable[Callback] = (),
) -> None:
    """Make each call of a handler and each run of a job an action: ``track_handlers(application)``.

    Covers the handlers of every group, those inside of conversations, and those that are added later; ``block=False``
    handlers until their task ends; and the jobs of the application's job queue. An action is named after the callback,
    in ``snake_case`` with the suffix ``_handler`` or ``_task``. ``names`` gives callbacks other names, ``exclude``
    leaves some out, and callbacks that are decorated by hand are left as they are. A second call adds to the first.

    Exceptions pass through to the application's error handlers, which are not counted themselves;
    :exc:`ApplicationHandlerStop` is no error.

    Raises :class:`TypeError` or :class:`ValueError` for what is no application, no callback or no name.
    """
    if not isinstance(application, Application):
        raise TypeError(
            f"track_handlers() needs an Application, not {application!r:.100}; "
            "write: application = ApplicationBuilder().token(token).build(), then track_handlers(application)"
        )
    tracking = _tracked.get(application)
    if tracking is None:
        added = _Tracking()
        added.extend(names or {}, exclude)
        _tracked[application] = added
        _watch(application, added)
    else:
        tracking.extend(names or {}, exclude)


class _Tracking:
    """What is tracked in one application, and under which names."""

    __slots__ = ("_excluded", "_names")

    def __init__(self) -> None:
        self._names: dict[Hashable, str] = {}
        self._excluded: set[Hashable] = set()

    def extend(self, names: Mapping[Callback, str], exclude: Iterable[Callback]) -> None:
        """Take further names, and callbacks to leave out."""
        given: object = exclude
        excluded = list(exclude) if isinstance(given, Iterable) else [None]
        if not all(callable(callback) for callback in [*names, *excluded]):
            raise TypeError(
                "names and exclude of track_handlers() take callbacks, as in names={menu: 'main_menu_handler'} and "
                f"exclude=[ping]; given were names={names!r:.100} and exclude={exclude!r:.100}"
            )
        self._names.update({callback: check_name(name) for callback, name in names.items()})
        self._excluded.update(excluded)

    def name(self, callback: Callback, suffix: str) -> str | None:
        """Return the name of the action that a call is, ``None`` where it is none."""
        try:
            return None if callback in self._excluded else self._names.get(callback) or action_name(callback, suffix)
        except TypeError:  # it can't be hashed, so it is in neither
            return action_name(callback, suffix)

    def cover(self, handlers: Iterable[BaseHandler[Any, Any, Any]], seen: frozenset[int] = frozenset()) -> None:
        """Track the calls of ``handlers`` and of those inside of them, those that aren't tracked yet."""
        for handler in handlers:
            if type(getattr(handler, "callback", None)) is CallableProxy:  # as all are, but before the first update
                continue
            if not isinstance(handler, ConversationHandler):
                self.cover_calls(handler, HANDLER)
            elif id(handler) not in seen:  # a conversation may lead back to itself
                around = seen | {id(handler)}
                for inner in (handler.entry_points, *handler.states.values(), handler.fallbacks):
                    self.cover(inner, around)

    def cover_calls(self, owner: Any, suffix: str) -> None:
        """Put a tracked callback in the place of that of a handler or job, one that is equal to it."""
        callback = getattr(owner, "callback", None)
        if callback is None or type(callback) is CallableProxy:
            return
        name = action_name(callback, suffix)
        if name is None:
            return

        async def call(*args: Any, **kwargs: Any) -> Any:
            tracking = self.around(*args, *kwargs.values())
            name = None if tracking is None else tracking.name(callback, suffix)
            if name is None:
                return await callback(*args, **kwargs)
            with HandlerAction(name, ApplicationHandlerStop) as _:  # named, so that it can be found from the frame
                return await callback(*args, **kwargs)

        try:
            owner.callback = CallableProxy(name, callback, call)
        except Exception:  # a handler of the application's own, which doesn't let its callback be set
            return

    def around(self, *arguments: object) -> "_Tracking | None":
        """Return how the application is tracked that calls: a handler may belong to several. ``None`` if it isn't."""
        for context in arguments:
            if isinstance(context, CallbackContext):
                return _tracked.get(context.application)
        return self  # a handler of the application's own, which passes no context on


_tracked: "WeakKeyDictionary[Application[Any, Any, Any, Any, Any, Any], _Tracking]" = WeakKeyDictionary()


def _watch(application: "Application[Any, Any, Any, Any, Any, Any]", tracking: _Tracking) -> None:
    """Look at handlers and jobs as the context is made that they are about to be called with.

    Nothing that python-telegram-bot calls would tell of a handler that is added, or of one that is put into a
    conversation; and a job may come from a store, anew for each run. Contexts stay of the class that they were of.
    """
    types = application.context_types
    kind: Any = types.context

    class Context(kind):  # type: ignore[misc]
        __slots__ = ()
        from_error = kind.from_error

        @classmethod
        def from_update(cls, update: object, application: Any) -> Any:
            context = kind.from_update(update, application)
            for handlers in list(application.handlers.values()):
                tracking.cover(handlers)
            return context

        @classmethod
        def from_job(cls, job: Job[Any], application: Any) -> Any:
            context = kind.from_job(job, application)
            if not isinstance(getattr(job.callback, "__self__", None), ConversationHandler):
                tracking.cover_calls(job, TASK)
            return context

    Context.__name__, Context.__qualname__ = kind.__name__, kind.__qualname__
    Context.__module__, Context.__doc__ = kind.__module__, kind.__doc__
    application.context_types = ContextTypes(Context, types.bot_data, types.chat_data, types.user_data)


class _RequestStream(RequestStream, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class _ResponseStream(ResponseStream, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


_attempts: Final[ContextVar[list[_RequestStream] | None]] = ContextVar("llm_common_telegram", default=None)
"""The attempts at the request that is under way, by their bodies; more than one where there are redirects."""


class TrackedRequest(HTTPXRequest):
    """Counts every request of a bot; arguments as for ``HTTPXRequest``.

    ``ApplicationBuilder().request(TrackedRequest()).get_updates_request(TrackedRequest(connection_pool_size=1))``
    counts them all, those too that wait for updates. The ``app_type`` is ``telegram_api``, the ``resource`` the method
    of the Bot API, and ``file/{path}`` for files that are downloaded. No label has the token in it.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Hooks, and no transport: a client that is given one would ignore the proxies of the environment.
        options = kwargs.get("httpx_kwargs") or {}
        hooks = options.get("event_hooks") or {}
        tracked = {
            "request": [*hooks.get("request", ()), _begun],
            "response": [_answered, *hooks.get("response", ())],
        }
        super().__init__(*args, **{**kwargs, "httpx_kwargs": {**options, "event_hooks": tracked}})

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        """Send one request, and return status and body."""
        before, bodies = _attempts.get(), list[_RequestStream]()
        _attempts.set(bodies)
        try:
            return await super().do_request(*args, **kwargs)
        except BaseException as exception:
            for body in bodies:
                body.attempt.failed(exception.__cause__ or exception)  # httpx has its own for each kind of timeout
            raise
        finally:
            _attempts.set(before)


async def _begun(request: httpx.Request) -> None:
    """Begin an attempt, and let the request's body be counted while it is under way."""
    bodies = _attempts.get()
    if bodies is not None:
        attempt = ClientAttempt(TELEGRAM, request.method, request.url.raw_path.decode("ascii"))
        body = _RequestStream(request.stream, attempt, TrackedRequest)
        bodies.append(body)
        request.stream = body


async def _answered(response: httpx.Response) -> None:
    """Take the response, and let its body be counted as it is read."""
    bodies = _attempts.get()
    if bodies:
        body = bodies[-1]
        response.request.stream = body.stream  # as it was, for redirects
        body.attempt.answered(response.status_code)
        if response.is_closed:  # made in memory, as mocks do
            body.attempt.response_bytes = len(response.content)
            body.attempt.completed()
        else:
            response.stream = _ResponseStream(response.stream, body.attempt)
