"""How code gives functions to frameworks: aiogram, python-telegram-bot, APScheduler, Celery.

Nothing is imported: frameworks are known by the dotted names of what code uses, and where those can't be told, as of a
parameter without a type, by what the object is called.
"""

import ast
import re
from collections.abc import Iterable, Iterator

from llm_common.action_names import AGENT, LLM_CALL
from llm_common.lint.known import (
    AGENT_RUN,
    AIOGRAM,
    AIOGRAM_HANDLER,
    CALLBACK_AT,
    JOB,
    MIDDLEWARE,
    MODEL,
    OBSERVERS,
    SCENE_STEPS,
    TELEGRAM_HANDLER,
    Role,
)
from llm_common.lint.resolve import Defined, Resolver
from llm_common.lint.routing import ANYWHERE, Route, Router
from llm_common.lint.scopes import Kind, Scope, within
from llm_common.lint.values import Values

ROUTER_NAME = re.compile(r"(?:^|_)(?:router|dp|dispatcher)$")
CELERY_NAME = re.compile(r"^(?:app|celery|celery_app)$")
ADD_JOB = frozenset({"add_job", "add_schedule"})
OTHER_OBSERVERS = ("error", "errors", "update")
"""Those of errors, which no handlers of updates are in, and that of all updates."""
MIDDLEWARES = frozenset({"middleware", "outer_middleware"})
INCLUDE = frozenset({"include_router", "include_routers"})
RUN_JOB = frozenset({"run_once", "run_repeating", "run_daily", "run_monthly", "run_custom"})

AGENT_PACKAGES = ("agents", "pydantic_ai", "langchain", "langgraph")
COMPLETION = frozenset({"create", "parse", "stream"})
INVOKE = frozenset({"invoke", "ainvoke"})
RUN = frozenset({"run", "run_sync", "run_streamed", "run_stream"})


class Frameworks:
    """Recognises what registers functions."""

    def __init__(self, resolver: Resolver, values: Values) -> None:
        self._resolver = resolver
        self._values = values

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
            elif function.attr in RUN_JOB and self._job_queue(value, scope):
                role = JOB
        if role is None:
            package, _, handler = dotted.rpartition(".")
            if handler in CALLBACK_AT and package.startswith("telegram."):
                role, position = TELEGRAM_HANDLER, CALLBACK_AT[handler]
        target = argument(call, position, name)
        return (role, target) if role and target is not None else None

    def route(self, decorator_or_call: ast.expr, scope: Scope) -> Route:
        """Return what a handler of aiogram is registered with."""
        function = decorator_or_call.func if isinstance(decorator_or_call, ast.Call) else decorator_or_call
        while isinstance(function, ast.Attribute) and function.attr not in OBSERVERS:
            function = function.value
        return (
            Route(self._router(function.value, scope), function.attr)
            if isinstance(function, ast.Attribute)
            else ANYWHERE
        )

    def covered(self, call: ast.Call, scope: Scope) -> Route | None:
        """Return what a call puts our middleware in front of, or ``None``."""
        function = call.func
        if not isinstance(function, ast.Attribute):
            return None
        if function.attr == "setup" and self._tracks(function.value, scope):
            router = argument(call, 0, "router")
            return ANYWHERE if router is None else Route(self._router(router, scope))
        if function.attr == "register" and isinstance(function.value, ast.Attribute):
            function = function.value  # of the object that observers have for their middlewares
        middleware = argument(call, 0, "middleware") if function.attr in MIDDLEWARES else None
        if middleware is None or not self._tracks(middleware, scope):
            return None
        observer = self._meant(function.value, scope)
        if not isinstance(observer, ast.Attribute) or observer.attr not in (*OBSERVERS, *OTHER_OBSERVERS):
            return ANYWHERE
        return Route(self._router(observer.value, scope), observer.attr.removeprefix("update"))

    def included(self, call: ast.Call, scope: Scope) -> Iterator[tuple[Router, Router]]:
        """Yield the routers of aiogram that a call nests in another, each after that."""
        if isinstance(call.func, ast.Attribute) and call.func.attr in INCLUDE:
            outer = self._router(call.func.value, scope)
            if outer.key:
                given = (*call.args, *(keyword.value for keyword in call.keywords))
                yield from ((outer, self._router(one, scope)) for one in given)

    def _tracks(self, expression: ast.expr, scope: Scope) -> bool:
        return MIDDLEWARE in self._values.classes_of(expression, scope)

    def _router(self, expression: ast.expr, scope: Scope) -> Router:
        kinds = self._values.classes_of(expression, scope)
        dispatcher = any(kind.startswith("aiogram.") and kind.endswith(".Dispatcher") for kind in kinds)
        thing = self._resolver.find(expression, scope)
        if not isinstance(thing, Defined) or thing.kind is not Kind.VALUE or not is_router(kinds):
            return Router(None, dispatcher)
        return Router((thing.scope.path, thing.scope.qualname, thing.name), dispatcher)

    def _meant(self, expression: ast.expr, scope: Scope) -> ast.expr:
        """Return what a variable was assigned, where that is a dotted name, else the expression itself."""
        around = scope.lookup(expression.id) if isinstance(expression, ast.Name) else None
        value = around[1][-1].value if around else None
        return value if isinstance(value, ast.Attribute) else expression

    def _observer(self, function: ast.Attribute, scope: Scope) -> bool:
        """Return whether ``function`` is an observer of an aiogram router or scene."""
        if function.attr in SCENE_STEPS and isinstance(function.value, ast.Attribute):
            function = function.value
            return function.attr in OBSERVERS and self._scene(function.value, scope)
        if function.attr not in OBSERVERS:
            return False
        kinds = self._values.classes_of(function.value, scope)
        if kinds:
            return is_router(kinds)
        if self._scene(function.value, scope):
            return True
        return AIOGRAM in scope.roots and bool(ROUTER_NAME.search(last_name(function.value)))

    def _scene(self, expression: ast.expr, scope: Scope) -> bool:
        return self._resolver.dotted(expression, scope).startswith("aiogram.fsm.scene.")

    def _scheduler(self, expression: ast.expr, scope: Scope) -> bool:
        kinds = self._values.classes_of(expression, scope)
        if kinds:
            return any(kind.startswith("apscheduler.") for kind in kinds)
        return "sched" in last_name(expression).lower()

    def _job_queue(self, expression: ast.expr, scope: Scope) -> bool:
        kinds = self._values.classes_of(expression, scope)
        return "telegram.ext.JobQueue" in kinds or last_name(self._meant(expression, scope)).endswith("job_queue")

    def _celery(self, expression: ast.expr, scope: Scope) -> bool:
        kinds = self._values.classes_of(expression, scope)
        if kinds:
            return any(kind.startswith("celery.") for kind in kinds)
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
                    return AGENT_RUN
                if suffix:
                    return MODEL
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


def argument(call: ast.Call, position: int | None, name: str) -> ast.expr | None:
    """Return an argument of a call, by its position, if it has one, or its name."""
    before = call.args if position is None else call.args[: position + 1]
    if position is not None and len(before) > position and not any(isinstance(one, ast.Starred) for one in before):
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def last_name(expression: ast.expr) -> str:
    """Return the last part of a dotted name."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def is_router(kinds: Iterable[str]) -> bool:
    """Return whether one of these classes is a router of aiogram."""
    return any(kind.startswith("aiogram.") and kind.endswith((".Router", ".Dispatcher")) for kind in kinds)
