"""Every rule as data: the report, the configuration, ``--explain`` and the documentation follow from it."""

from collections.abc import Mapping
from types import MappingProxyType

from llm_common.reporting.rules import Rule, rule

ALL = [
    rule(
        "LC101",
        "a name that isn't in snake_case",
        """Dashboards and alerts find actions by their names: lower-case ASCII letters and digits, words separated by
        one `_`. A name that isn't a text at all, or is empty, is an error when the program runs.""",
        """
        from llm_common.prometheus import action_tracking

        with action_tracking("Open-Menu_handler"):
            ...
        """,
        """
        from llm_common.prometheus import action_tracking

        with action_tracking("open_menu_handler"):
            ...
        """,
    ),
    rule(
        "LC102",
        "a name with two suffixes",
        """The suffix says what an action is, and it is one thing: `menu_handler_handler` and `menu_task_handler` are
        slips that dashboards show for ever.""",
        """
        from llm_common.prometheus import action_tracking

        with action_tracking("menu_handler_handler"):
            ...
        """,
        """
        from llm_common.prometheus import action_tracking

        with action_tracking("menu_handler"):
            ...
        """,
    ),
    rule(
        "LC103",
        "a name that isn't a literal",
        """Each name is a set of series that stays for the life of the process, so a name built from data fills the
        memory of the application and of Prometheus. A constant that is given literals only is as good as a literal,
        wherever in the project it stands; so are a loop over literals, a parameter whose type is `Literal[…]`, and a
        member of an enumeration.""",
        """
        from llm_common.prometheus import action_tracking

        def open_menu(user_id):
            with action_tracking(f"menu_{user_id}_handler"):
                ...
        """,
        """
        from llm_common.prometheus import action_tracking

        def open_menu(user_id):
            with action_tracking("menu_handler"):
                ...
        """,
    ),
    rule(
        "LC104",
        "one name for two things",
        """Two functions, or a function and a block, under one name are one series: nobody can tell afterwards which of
        them was slow. Blocks in one function may share a name, and so may a method and what overrides it.""",
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("menu_handler")
        def open_menu(): ...

        @action_tracking_decorator("menu_handler")
        def close_menu(): ...
        """,
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("menu_handler")
        def open_menu(): ...

        @action_tracking_decorator("close_menu_handler")
        def close_menu(): ...
        """,
    ),
    rule(
        "LC201",
        "a Telegram handler whose name lacks _handler",
        """Dashboards show as handlers what ends with `_handler`; the others are missing there. A handler is what
        aiogram or python-telegram-bot is given as one, and what `names` of `track_handlers` or a flag of aiogram is
        for.""",
        """
        from aiogram import Router

        from llm_common.prometheus import action_tracking_decorator

        router = Router()

        @router.message()
        @action_tracking_decorator("menu")
        async def menu(message): ...
        """,
        """
        from aiogram import Router

        from llm_common.prometheus import action_tracking_decorator

        router = Router()

        @router.message()
        @action_tracking_decorator("menu_handler")
        async def menu(message): ...
        """,
    ),
    rule(
        "LC202",
        "a scheduled job whose name lacks _task",
        """Dashboards show as jobs what ends with `_task`. A job is what APScheduler, Celery or the job queue of
        python-telegram-bot is given as one, and what `names` of `track_jobs` or `track_tasks` is for.""",
        """
        from celery import Celery

        from llm_common.prometheus import action_tracking_decorator

        app = Celery("shop")

        @app.task
        @action_tracking_decorator("reindex")
        def reindex(): ...
        """,
        """
        from celery import Celery

        from llm_common.prometheus import action_tracking_decorator

        app = Celery("shop")

        @app.task
        @action_tracking_decorator("reindex_task")
        def reindex(): ...
        """,
    ),
    rule(
        "LC203",
        "a call of a model whose name lacks _llm_call",
        """Dashboards show as calls of a model what ends with `_llm_call`. Reported is a decorated function, or a block
        of one statement, that calls a model itself and has none of the four suffixes; and any other name that an
        integration is given for calls of a model.""",
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("answer")
        async def answer(client, messages):
            return await client.chat.completions.create(model="small", messages=messages)
        """,
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("answer_llm_call")
        async def answer(client, messages):
            return await client.chat.completions.create(model="small", messages=messages)
        """,
    ),
    rule(
        "LC204",
        "a run of an agent whose name lacks _agent",
        """Dashboards show as runs of agents what ends with `_agent`. Reported is a decorated function, or a block of
        one statement, that runs an agent itself and has none of the four suffixes; and any other name that an
        integration is given for runs of an agent, unless it adds the suffix itself.""",
        """
        from agents import Runner

        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("support")
        async def support(agent, question):
            return await Runner.run(agent, question)
        """,
        """
        from agents import Runner

        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("support_agent")
        async def support(agent, question):
            return await Runner.run(agent, question)
        """,
    ),
    rule(
        "LC301",
        "an exception swallowed inside of a tracked block",
        """A block that handles an exception itself ends normally and counts as `ok`, so the error rate stays at zero
        while users see apologies. `to_fail()` says that it failed. Reported are `except:`, `except Exception`,
        `except BaseException` and `suppress()` of these; with `narrow-excepts = true` all others too; and a `return`,
        `break` or `continue` that leaves a `finally`. A clause that raises or calls `to_fail()`, by a function of the
        same file too, or leaves that to what follows, is right.""",
        """
        from llm_common.prometheus import action_tracking

        def ask(model):
            with action_tracking("ask_handler") as tracker:
                try:
                    return model()
                except Exception:
                    return "Please try again."
        """,
        """
        from llm_common.prometheus import action_tracking

        def ask(model):
            with action_tracking("ask_handler") as tracker:
                try:
                    return model()
                except Exception:
                    tracker.to_fail("model_failed")
                    return "Please try again."
        """,
    ),
    rule(
        "LC302",
        "a tracker used after its block",
        """The action was counted when its block ended: a size or a failure that comes later is left out, and raises in
        strict mode.""",
        """
        from llm_common.prometheus import action_tracking

        def export(rows):
            with action_tracking("export_task") as tracker:
                written = list(rows)
            tracker.size(len(written))
        """,
        """
        from llm_common.prometheus import action_tracking

        def export(rows):
            with action_tracking("export_task") as tracker:
                written = list(rows)
                tracker.size(len(written))
        """,
    ),
    rule(
        "LC303",
        "tracking that is never entered",
        """`action_tracking(…)` on its own makes a tracker and drops it: nothing is counted. The same is true of one
        that is assigned and neither entered nor given away, and of a decorator that decorates nothing.""",
        """
        from llm_common.prometheus import action_tracking

        def export(rows):
            action_tracking("export_task")
            return list(rows)
        """,
        """
        from llm_common.prometheus import action_tracking

        def export(rows):
            with action_tracking("export_task"):
                return list(rows)
        """,
    ),
    rule(
        "LC304",
        "async with around a tracker",
        """A tracker is a plain context manager, in async code as well; `async with` raises `TypeError`.""",
        """
        from llm_common.prometheus import action_tracking

        async def menu():
            async with action_tracking("menu_handler"):
                ...
        """,
        """
        from llm_common.prometheus import action_tracking

        async def menu():
            with action_tracking("menu_handler"):
                ...
        """,
    ),
    rule(
        "LC305",
        "the context manager as a decorator",
        """`action_tracking` is for `with`. As a decorator it raises `TypeError`; the decorator has a name of its
        own.""",
        """
        from llm_common.prometheus import action_tracking

        @action_tracking("menu_handler")
        def menu(): ...
        """,
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("menu_handler")
        def menu(): ...
        """,
    ),
    rule(
        "LC306",
        "the decorator without its name",
        """The decorator takes the name of the action in parentheses; without them it is given the function as a name
        and raises `TypeError`.""",
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator
        def menu(): ...
        """,
        """
        from llm_common.prometheus import action_tracking_decorator

        @action_tracking_decorator("menu_handler")
        def menu(): ...
        """,
    ),
    rule(
        "LC307",
        "with around what isn't a tracker",
        """`with` takes what `action_tracking("…")` returns. The decorator, or the function without its parentheses,
        raises `TypeError`.""",
        """
        from llm_common.prometheus import action_tracking_decorator

        def menu():
            with action_tracking_decorator("menu_handler"):
                ...
        """,
        """
        from llm_common.prometheus import action_tracking

        def menu():
            with action_tracking("menu_handler"):
                ...
        """,
    ),
    rule(
        "LC308",
        "the tracking decorator above the one that registers",
        """Decorators apply from below. One that registers a function has been given the function without its tracking,
        where that stands above: the framework calls what nothing counts.""",
        """
        from aiogram import Router

        from llm_common.prometheus import action_tracking_decorator

        router = Router()

        @action_tracking_decorator("menu_handler")
        @router.message()
        async def menu(message): ...
        """,
        """
        from aiogram import Router

        from llm_common.prometheus import action_tracking_decorator

        router = Router()

        @router.message()
        @action_tracking_decorator("menu_handler")
        async def menu(message): ...
        """,
    ),
    rule(
        "LC401",
        "an aiogram handler that nothing tracks",
        """Every handler and callback has to be tracked, or dashboards show only a part of the bot. One line does it:
        `ActionTrackingMiddleware().setup(dispatcher)`. As a middleware of one observer it is for the handlers of that
        one, in its router and in those that this includes; one in a test is for tests. A decorator, or
        `with action_tracking(…)` in the handler, does it for one handler.""",
        """
        from aiogram import Router

        router = Router()

        @router.callback_query()
        async def order(callback): ...
        """,
        """
        from aiogram import Router

        from llm_common.integrations.aiogram import ActionTrackingMiddleware

        router = Router()
        router.callback_query.outer_middleware(ActionTrackingMiddleware())

        @router.callback_query()
        async def order(callback): ...
        """,
    ),
    rule(
        "LC402",
        "a python-telegram-bot handler that nothing tracks",
        """Every handler and callback has to be tracked, or dashboards show only a part of the bot. One line does it:
        `track_handlers(application)`, anywhere in the files given; one in a test is for tests. A decorator, or
        `with action_tracking(…)` in the handler, does it for one handler.""",
        """
        from telegram.ext import Application, CommandHandler

        async def menu(update, context): ...

        application = Application.builder().token("…").build()
        application.add_handler(CommandHandler("menu", menu))
        """,
        """
        from telegram.ext import Application, CommandHandler

        from llm_common.integrations.telegram import track_handlers

        async def menu(update, context): ...

        application = Application.builder().token("…").build()
        application.add_handler(CommandHandler("menu", menu))
        track_handlers(application)
        """,
    ),
    rule(
        "LC901",
        "a file that isn't Python",
        """A file that can't be parsed isn't checked. It is reported whatever is selected, unless it is ignored. The
        syntax is that of the Python that the linter runs on.""",
        """
        def menu(:
        """,
        """
        def menu(): ...
        """,
    ),
    rule(
        "LC902",
        "a file that can't be read",
        """The file or folder can't be opened, is a pipe or a device, or its text isn't in the encoding that it declares
        (UTF-8 where it declares none). It is reported whatever is selected, unless it is ignored.""",
        """
        # coding: no-such-encoding
        """,
        """
        # coding: utf-8
        """,
    ),
    rule(
        "LC903",
        "a comment that silences nothing",
        """What was ignored has been mended, or the comment stands on another line. It would hide the next mistake
        there.""",
        """
        rows = []  # llm-common: ignore[LC103]
        """,
        """
        rows = []
        """,
    ),
    rule(
        "LC904",
        "a comment to the linter that can't be understood",
        """It names a code that doesn't exist, or isn't of the form `# llm-common: ignore[LC103]`, so it does not do
        what its author meant.""",
        """
        rows = []  # llm-common: ignore[LC1003]
        """,
        """
        rows = []
        """,
    ),
]

RULES: Mapping[str, Rule] = MappingProxyType({one.code: one for one in ALL})
"""Each rule by its code, in order."""

ALWAYS = frozenset({"LC901", "LC902"})
"""What ``select`` doesn't take out: that a file wasn't checked must not look like a file without findings."""
