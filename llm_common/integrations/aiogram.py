"""Actions and HTTP metrics for bots that are made with aiogram 3.

``ActionTrackingMiddleware().setup(dispatcher)`` makes each call of a handler one action, named after the handler's
function; ``Bot(token, session=TrackedSession())`` counts the bot's own requests.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isclass
from typing import Any

from aiogram import BaseMiddleware, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.dispatcher.event.bases import UNHANDLED, CancelHandler, SkipHandler
from aiogram.dispatcher.event.handler import HandlerObject
from aiogram.dispatcher.event.telegram import TelegramEventObserver
from aiogram.dispatcher.flags import get_flag
from aiogram.fsm.scene import SceneHandlerWrapper
from aiogram.handlers import BaseHandler
from aiogram.types import ErrorEvent, TelegramObject, Update
from aiogram.types.update import UpdateTypeLookupError
from aiohttp import ClientSession

from llm_common.action_names import HANDLER
from llm_common.decorator import tracked_name
from llm_common.dispatch import misused
from llm_common.http_labels import TELEGRAM
from llm_common.integrations.aiohttp_client import tracked_trace_config
from llm_common.integrations.handler_actions import UNHANDLED_UPDATE, HandlerAction, action_name
from llm_common.tracking import action_tracking

FLAG = "action_tracking"
"""The flag of a handler that names its action, or, where it is false, leaves the handler out."""

CONTROL_FLOW = (SkipHandler, CancelHandler)
"""What a handler raises to pass an update on or to drop it: no error."""

NextCall = Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]]

_counted: ContextVar[object] = ContextVar("llm_common_aiogram", default=None)
"""What is counted around the caller: the update that is routed, or the handler that is called."""


@dataclass(slots=True)
class Routing:
    """An update under way to a handler."""

    update_id: int | None
    handled: bool = False
    """Whether a handler was called, which may have passed the update on."""


class ActionTrackingMiddleware(BaseMiddleware):
    """Makes each call of a handler an action: ``ActionTrackingMiddleware().setup(dispatcher)``.

    The action is named after the handler's function or class, in ``snake_case`` with the suffix ``_handler``. The flag
    ``action_tracking`` gives it another name, or leaves the handler out where it is ``False``. An update that no
    handler is called for counts as ``unhandled_update_handler``. What is raised passes through to the error handlers;
    :exc:`SkipHandler` and :exc:`CancelHandler` are no errors.

    For a part of the bot it is an outer middleware: ``dispatcher.message.outer_middleware(ActionTrackingMiddleware())``
    covers messages, those of nested routers too. However many are registered, a call counts once.
    """

    def setup(self, router: Router) -> None:
        """Track every handler of a dispatcher, or of a router, and of those that are nested in it now or later.

        Error handlers are left out, for the action that failed is counted; ``dispatcher.errors.outer_middleware(…)``
        counts them too.
        """
        if "update" in router.observers:
            router.observers["update"].outer_middleware(self)
        else:
            for name, observer in router.observers.items():
                if name != "error":
                    observer.outer_middleware(self)

    async def __call__(self, handler: NextCall, event: TelegramObject, data: dict[str, Any]) -> Any:
        """Pass an update on to whatever is to handle it, and count it where nothing does."""
        if _is_inner(data):
            return await track_call(handler, event, data)
        router, update = _where(event, data)
        _track_calls(router, event, update)
        before = _counted.get()
        if update is not None and isinstance(before, Routing) and before.update_id == update.update_id:
            return await handler(event, data)
        routing = Routing(None if update is None else update.update_id)
        _counted.set(routing)
        try:
            result = await handler(event, data)
        finally:
            _counted.set(before)
        nested = router is not None and router.parent_router is not None  # another router may yet take the update
        if result is UNHANDLED and not routing.handled and not nested and not isinstance(event, ErrorEvent):
            with action_tracking(UNHANDLED_UPDATE):
                pass
        return result


async def track_call(handler: NextCall, event: TelegramObject, data: dict[str, Any]) -> Any:
    """Make the call of one handler an action: the inner middleware, which alone knows which handler it is."""
    target = data.get("handler")
    before = _counted.get()
    if not isinstance(target, HandlerObject) or before is target:
        return await handler(event, data)
    if isinstance(before, Routing):
        before.handled = True
    _counted.set(target)
    try:
        name = _action_of(target)
        if name is None:
            return await handler(event, data)
        with HandlerAction(name, CONTROL_FLOW) as _:  # named, so that it can be found from the frame
            return await handler(event, data)
    finally:
        _counted.set(before)


def _is_inner(data: dict[str, Any]) -> bool:
    """Return whether the middleware was registered as an inner one, and so stands around one handler."""
    handler, dispatcher = data.get("handler"), data.get("dispatcher")
    if handler is None:
        return False
    # Outer middlewares see the dispatcher's own handler of updates, which finds out what kind of update it is.
    own = () if dispatcher is None else dispatcher.update.handlers
    return not any(handler is one for one in own)


def _where(event: TelegramObject, data: dict[str, Any]) -> tuple[Router | None, Update | None]:
    """Return the router that is about to look for a handler, and the update that it is looked for."""
    if isinstance(event, Update):
        return data.get("dispatcher"), event
    return data.get("event_router"), data.get("event_update")


def _track_calls(router: Router | None, event: TelegramObject, update: Update | None) -> None:
    """See to it that calls of the handlers for this kind of event are tracked.

    The middleware is told neither which observer it is registered with nor when, so this is done at the last moment,
    just before the inner middlewares are collected.
    """
    try:
        kind = "error" if isinstance(event, ErrorEvent) else update.event_type if update is not None else ""
    except UpdateTypeLookupError:  # newer than this aiogram: nothing can handle it
        return
    observer: TelegramEventObserver | None = router.observers.get(kind) if router is not None else None
    if observer is not None and track_call not in observer.middleware:
        observer.middleware(track_call)


def _action_of(handler: HandlerObject) -> str | None:
    """Return the name of the action that a call of ``handler`` is, ``None`` where it is none."""
    flag = get_flag(handler, FLAG)
    callback: Any = handler.callback
    if isinstance(callback, SceneHandlerWrapper):
        callback = callback.handler.callback
    by_hand = isclass(callback) and issubclass(callback, BaseHandler) and tracked_name(callback.handle) is not None
    name = None if by_hand or flag is False else action_name(callback, HANDLER)
    if name is None or flag is None or flag is True:
        return name
    if isinstance(flag, str) and flag:
        return flag
    misused(f"the flag {FLAG} of {name} is {flag!r:.100}; accepted: the action's name, or False to leave it out")
    return name


class TrackedSession(AiohttpSession):
    """Counts every request of a bot: ``Bot(token, session=TrackedSession())``; arguments as for ``AiohttpSession``.

    The ``app_type`` is ``telegram_api``, the ``resource`` the method of the Bot API, and ``file/{path}`` for files that
    are downloaded. No label has the token in it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trace_config = tracked_trace_config(app_type=TELEGRAM)
        self._trace_config.freeze()

    async def create_session(self) -> ClientSession:
        """Return the session that sends, a new one where there is none that is open."""
        session = await super().create_session()
        if self._trace_config not in session.trace_configs:
            session.trace_configs.append(self._trace_config)
        return session
