"""How code gives functions to frameworks: aiogram, python-telegram-bot, APScheduler, Celery.

Nothing is imported: frameworks are known by the dotted names of what code uses, and where those can't be told, as of a
parameter without a type, by what the object is called.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llm_common.action_names import AGENT, HANDLER, LLM_CALL, TASK
from llm_common.lint.resolve import Resolver
from llm_common.lint.scopes import Scope, within

OBSERVERS = frozenset(
    {
        "business_connection",
        "business_message",
        "callback_query",
        "channel_post",
        "chat_boost",
        "chat_join_request",
        "chat_member",
        "chosen_inline_result",
        "deleted_business_messages",
        "edited_business_message",
        "edited_channel_post",
        "edited_message",
        "guest_message",
        "inline_query",
        "managed_bot",
        "message",
        "message_reaction",
        "message_reaction_count",
        "my_chat_member",
        "poll",
        "poll_answer",
        "pre_checkout_query",
        "purchased_paid_media",
        "removed_chat_boost",
        "shipping_query",
        "stopped_message_generation",
        "subscription",
    }
)
"""The observers of an aiogram router that take handlers of updates."""

SCENE_STEPS = frozenset({"enter", "leave", "exit", "back"})

CALLBACK_AT: Mapping[str, int] = MappingProxyType(
    {
        "BusinessConnectionHandler": 0,
        "BusinessMessagesDeletedHandler": 0,
        "CallbackQueryHandler": 0,
        "ChatBoostHandler": 0,
        "ChatJoinRequestHandler": 0,
        "ChatMemberHandler": 0,
        "ChosenInlineResultHandler": 0,
        "CommandHandler": 1,
        "InlineQueryHandler": 0,
        "ManagedBotUpdatedHandler": 0,
        "MessageHandler": 1,
        "MessageReactionHandler": 0,
        "PaidMediaPurchasedHandler": 0,
        "PollAnswerHandler": 0,
        "PollHandler": 0,
        "PreCheckoutQueryHandler": 0,
        "PrefixHandler": 2,
        "ShippingQueryHandler": 0,
        "StringCommandHandler": 1,
        "StringRegexHandler": 1,
        "TypeHandler": 1,
    }
)
"""The handlers of python-telegram-bot, with the position of the callback among their arguments."""

MIDDLEWARE = "llm_common.integrations.aiogram.ActionTrackingMiddleware"
TRACK_HANDLERS = "llm_common.integrations.telegram.track_handlers"

AIOGRAM, TELEGRAM, JOBS = "aiogram", "python-telegram-bot", "jobs"
ROUTER_NAME = re.compile(r"(?:^|_)(?:router|dp|dispatcher)$")
CELERY_NAME = re.compile(r"^(?:app|celery|celery_app)$")
ADD_JOB = frozenset({"add_job", "add_schedule"})
RUN_JOB = frozenset({"run_once", "run_repeating", "run_daily", "run_monthly", "run_custom"})

AGENT_PACKAGES = ("agents", "pydantic_ai", "langchain", "langgraph")
COMPLETION = frozenset({"create", "parse", "stream"})
INVOKE = frozenset({"invoke", "ainvoke"})
RUN = frozenset({"run", "run_sync", "run_streamed", "run_stream"})


@dataclass(frozen=True, slots=True)
class Role:
    """What a framework takes a function for."""

    framework: str
    suffix: str
    words: str
    """What the function is, for a message."""


AIOGRAM_HANDLER = Role(AIOGRAM, HANDLER, "a handler of aiogram")
TELEGRAM_HANDLER = Role(TELEGRAM, HANDLER, "a handler of python-telegram-bot")
JOB = Role(JOBS, TASK, "a scheduled job")


class Frameworks:
    """Recognises what registers functions."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def decorator(self, decorator: ast.expr, scope: Scope) -> Role | None:
        """Return what the function below ``decorator`` is registered as, or ``None``."""
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(function, ast.Attribute):
            if isinstance(decorator, ast.Call) and self._observer(function, scope):
                return AIOGRAM_HANDLER
            if function.attr == "scheduled_job" and self._scheduler(function.value, scope):
                return JOB
            if function.attr == "task" and self._celery(function.value, scope):
                return JOB
        if self._resolver.dotted(function, scope) in ("celery.shared_task", "celery.app.shared_task"):
            return JOB
        return None

    def call(self, call: ast.Call, dotted: str, scope: Scope) -> tuple[Role, ast.expr] | None:
        """Return what ``call``, of what has the name ``dotted``, registers and as what; ``None`` where nothing."""
        function = call.func
        role, position, name = None, 0, "callback"
        if isinstance(function, ast.Attribute):
            value = function.value
            if function.attr == "register" and isinstance(value, ast.Attribute) and self._observer(value, scope):
                role = AIOGRAM_HANDLER
            elif function.attr in ADD_JOB and self._scheduler(value, scope):
                role, name = JOB, "func"
            elif function.attr in RUN_JOB and last_name(value).endswith("job_queue"):
                role = JOB
        if role is None:
            package, _, handler = dotted.rpartition(".")
            if handler in CALLBACK_AT and package.startswith("telegram."):
                role, position = TELEGRAM_HANDLER, CALLBACK_AT[handler]
        target = argument(call, position, name)
        return (role, target) if role and target is not None else None

    def _observer(self, function: ast.Attribute, scope: Scope) -> bool:
        """Return whether ``function`` is an observer of an aiogram router or scene."""
        if function.attr in SCENE_STEPS and isinstance(function.value, ast.Attribute):
            function = function.value
            return function.attr in OBSERVERS and self._scene(function.value, scope)
        if function.attr not in OBSERVERS:
            return False
        kind = self._resolver.class_of(function.value, scope)
        if kind:
            return kind.startswith("aiogram.") and kind.endswith((".Router", ".Dispatcher"))
        if self._scene(function.value, scope):
            return True
        return AIOGRAM in scope.roots and bool(ROUTER_NAME.search(last_name(function.value)))

    def _scene(self, expression: ast.expr, scope: Scope) -> bool:
        return self._resolver.dotted(expression, scope).startswith("aiogram.fsm.scene.")

    def _scheduler(self, expression: ast.expr, scope: Scope) -> bool:
        kind = self._resolver.class_of(expression, scope)
        if kind:
            return kind.startswith("apscheduler.")
        return "sched" in last_name(expression).lower()

    def _celery(self, expression: ast.expr, scope: Scope) -> bool:
        kind = self._resolver.class_of(expression, scope)
        if kind:
            return kind.startswith("celery.")
        return "celery" in scope.roots and bool(CELERY_NAME.match(last_name(expression)))

    def model(self, body: list[ast.stmt], scope: Scope) -> Role | None:
        """Return which of a model's call or an agent's run a body does itself, or ``None``."""
        awaited: set[int] = set()
        for node in within(body):
            if isinstance(node, ast.Await):
                awaited.add(id(node.value))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                suffix = self._asks(node.func, scope, id(node) in awaited)
                if suffix == AGENT:
                    return Role("models", AGENT, "a run of an agent")
                if suffix:
                    return Role("models", LLM_CALL, "a call of a model")
        return None

    def _asks(self, function: ast.Attribute, scope: Scope, awaited: bool) -> str:
        """Return the suffix for what a method does; empty where it isn't sure."""
        method, value = function.attr, function.value
        words = set(last_name(value).lower().split("_"))
        if method in COMPLETION and isinstance(value, ast.Attribute):
            around = value.value
            chat = value.attr == "completions" and isinstance(around, ast.Attribute) and around.attr == "chat"
            return LLM_CALL if chat or value.attr == "responses" else ""
        if method in INVOKE:
            return LLM_CALL if words & {"llm", "model"} else AGENT if "agent" in words else ""
        if method in RUN:
            if self._resolver.dotted(value, scope).startswith("agents."):
                return AGENT
            known = any(root.startswith(AGENT_PACKAGES) for root in scope.roots)
            return AGENT if "agent" in words and "user" not in words and (known or awaited) else ""
        return ""


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """Return an argument of a call, by its position or its name."""
    if len(call.args) > position and not any(isinstance(one, ast.Starred) for one in call.args[: position + 1]):
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def last_name(expression: ast.expr) -> str:
    """Return the last part of a dotted name."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def tracked_everywhere(dotted: str) -> Iterator[str]:
    """Yield the framework of which everything is tracked once ``dotted`` is called."""
    if dotted == MIDDLEWARE:
        yield AIOGRAM
    if dotted == TRACK_HANDLERS:
        yield TELEGRAM
