"""python-telegram-bot: real applications, fed directly, by polling and by webhook, against a Bot API on loopback."""

import asyncio
import datetime as dt
import gc
import inspect
import logging
import socket
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from apscheduler.job import Job as ScheduledJob
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from sqlalchemy.pool import NullPool
from telegram import Bot, InputFile, Update
from telegram.error import BadRequest, NetworkError, TimedOut
from telegram.ext import (
    Application,
    ApplicationBuilder,
    ApplicationHandlerStop,
    BaseHandler,
    CallbackContext,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    ConversationHandler,
    InlineQueryHandler,
    Job,
    MessageHandler,
    TypeHandler,
    filters,
)
from telegram.request import BaseRequest, HTTPXRequest

from llm_common import action_tracking_decorator, current_action
from llm_common.integrations.telegram import TrackedRequest, track_handlers
from llm_common.testing import HttpExchange, RecordedMetrics
from scraping import Scrape
from telegram_api import BOT, CONTENT, PATIENCE, SECRET, TOKEN, TelegramApi, inline, message, pressed, telegram_api

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]


class Offline(BaseRequest):
    """Answers every call with the bot itself."""

    read_timeout = 1.0

    async def initialize(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        return 200, b'{"ok": true, "result": %s}' % str(BOT).replace("'", '"').replace("True", "true").encode()


def build(prepare: Callable[[Any], Any] = lambda builder: builder) -> App:
    """Return an application that needs no network."""
    built: App = prepare(ApplicationBuilder().token(TOKEN).request(Offline()).get_updates_request(Offline())).build()
    return built


def counted(recorded: RecordedMetrics) -> dict[tuple[str, str], int]:
    return Counter((event.name, str(event.status)) for event in recorded.events)


@asynccontextmanager
async def running(application: App) -> AsyncIterator[None]:
    async with application:
        await application.start()
        try:
            yield
        finally:
            await application.stop()


def feed(application: App, *steps: dict[str, Any] | Callable[[], object]) -> None:
    """Feed updates one after the other, with what is done between them, and wait for what they started."""

    async def all_of_them() -> None:
        async with running(application):
            for step in steps:
                if callable(step):
                    step()
                else:
                    await application.process_update(Update.de_json(step, application.bot))

    asyncio.run(all_of_them())


# Names


async def menu(update: Update, context: Context) -> str:
    return "menu"


async def menu_handler(update: Update, context: Context) -> None:
    pass


async def menu_with_defaults(update: Update, context: Context | None) -> None:
    pass


async def in_language(update: Update, context: Context, language: str) -> None:
    pass


class Shop:
    async def cart(self, update: Update, context: Context) -> None:
        pass

    async def __call__(self, update: Update, context: Context) -> None:
        pass


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (menu, "menu_handler"),
        (menu_handler, "menu_handler"),
        (Shop().cart, "cart_handler"),
        (Shop(), "shop_handler"),
        (partial(in_language, language="en"), "in_language_handler"),
        (lambda update, context: menu(update, context), "lambda_handler"),
    ],
)
def test_an_action_is_named_after_the_callback(callback: Any, name: str, recorded_metrics: RecordedMetrics) -> None:
    application = build()
    application.add_handler(MessageHandler(filters.ALL, callback))
    track_handlers(application)
    feed(application, message("hello"), message("hello"), pressed("other"))
    assert counted(recorded_metrics) == {(name, "ok"): 2}


def test_callbacks_may_be_given_names_or_left_out(recorded_metrics: RecordedMetrics) -> None:
    shop = Shop()
    application = build()
    track_handlers(application, names={menu: "main_menu_handler"}, exclude=[menu_handler])
    track_handlers(application, names={shop.cart: "basket_handler"}, exclude={shop})
    callbacks: list[Any] = [menu, menu_handler, shop.cart, shop]
    for group, callback in enumerate(callbacks):
        application.add_handler(MessageHandler(filters.ALL, callback), group)

    def change() -> None:
        assert counted(recorded_metrics) == {("main_menu_handler", "ok"): 1, ("basket_handler", "ok"): 1}
        track_handlers(application, names={menu: "menu_handler"}, exclude=(shop.cart,))

    feed(application, message("hello"), change, message("hello"))
    assert counted(recorded_metrics) == {
        ("main_menu_handler", "ok"): 1,
        ("basket_handler", "ok"): 1,
        ("menu_handler", "ok"): 1,
    }


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    async def __call__(self, update: Update, context: Context) -> None:
        pass


def test_a_callback_that_cannot_be_hashed_counts_too(recorded_metrics: RecordedMetrics) -> None:
    application = build()
    application.add_handler(MessageHandler(filters.ALL, Unhashable()))
    track_handlers(application, exclude=[menu])
    feed(application, message("hello"))
    assert counted(recorded_metrics) == {("unhashable_handler", "ok"): 1}


@pytest.mark.parametrize(
    ("arguments", "problem", "words"),
    [
        ({"names": {"menu": "menu_handler"}}, TypeError, "take callbacks"),
        ({"names": {menu: menu_handler}}, TypeError, "must be a string"),
        ({"names": {menu: ""}}, ValueError, "is empty"),
        ({"exclude": ["menu"]}, TypeError, "take callbacks"),
        ({"exclude": menu}, TypeError, "take callbacks"),
    ],
)
def test_names_and_exclusions_that_are_none_are_refused(
    arguments: Any, problem: type[Exception], words: str, recorded_metrics: RecordedMetrics
) -> None:
    application = build()
    with pytest.raises(problem, match=words):
        track_handlers(application, **arguments)
    assert application.context_types.context is CallbackContext


def test_what_is_no_application_is_refused_with_the_fix() -> None:
    with pytest.raises(TypeError, match=r"ApplicationBuilder\(\).token\(token\).build\(\)"):
        track_handlers(ApplicationBuilder())  # type: ignore[arg-type]


class DecoratedShop:
    @action_tracking_decorator("cart_handler")
    async def cart(self, update: Update, context: Context) -> None:
        pass

    @action_tracking_decorator("shop_handler")
    async def __call__(self, update: Update, context: Context) -> None:
        pass


@pytest.mark.parametrize(
    ("callback", "name"),
    [
        (action_tracking_decorator("main_menu_handler")(menu), "main_menu_handler"),
        (partial(action_tracking_decorator("language_handler")(in_language), language="en"), "language_handler"),
        (action_tracking_decorator("any_handler")(Shop()), "any_handler"),
        (DecoratedShop().cart, "cart_handler"),
        (DecoratedShop(), "shop_handler"),
    ],
)
def test_what_is_decorated_by_hand_is_not_counted_twice(
    callback: Any, name: str, recorded_metrics: RecordedMetrics
) -> None:
    application = build()
    handler = MessageHandler(filters.ALL, callback)
    application.add_handler(handler)
    track_handlers(application, names={callback: "another_handler"})
    feed(application, message("hello"))
    assert counted(recorded_metrics) == {(name, "ok"): 1}
    assert handler.callback is callback


def test_current_action_is_that_of_the_handler(recorded_metrics: RecordedMetrics) -> None:
    async def order(update: Update, context: Context) -> None:
        current_action().size(3)
        current_action().to_fail("sold_out")

    application = build()
    application.add_handler(MessageHandler(filters.ALL, order))
    track_handlers(application)
    feed(application, message("coffee"))
    recorded_metrics.assert_action("order_handler", status="error", size=3)


# What is covered


def test_every_group_and_what_is_added_later_in_any_way(recorded_metrics: RecordedMetrics) -> None:
    async def first(update: Update, context: Context) -> None:
        application.add_handler(MessageHandler(filters.ALL, second), group=1)

    async def second(update: Update, context: Context) -> None:
        pass

    async def third(update: Update, context: Context) -> None:
        pass

    def change() -> None:
        assert counted(recorded_metrics) == {("menu_handler", "ok"): 1, ("first_handler", "ok"): 1}
        application.handlers[0][0] = MessageHandler(filters.ALL, third)

    application = build()
    application.add_handler(MessageHandler(filters.ALL, first))
    track_handlers(application)
    application.add_handlers({-5: [TypeHandler(Update, menu)]})
    feed(application, message("hello"), change, message("hello"))
    assert counted(recorded_metrics) == {
        ("menu_handler", "ok"): 2,
        ("first_handler", "ok"): 1,
        ("second_handler", "ok"): 1,
        ("third_handler", "ok"): 1,
    }


def test_called_twice_it_counts_once(recorded_metrics: RecordedMetrics) -> None:
    application = build()
    application.add_handler(MessageHandler(filters.ALL, menu))
    track_handlers(application)
    kind = application.context_types.context
    track_handlers(application)
    assert application.context_types.context is kind
    feed(application, message("hello"), message("hello"))
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 2}


def test_a_handler_of_several_applications_counts_as_each_of_them_is_tracked(
    recorded_metrics: RecordedMetrics,
) -> None:
    handler = MessageHandler(filters.ALL, menu)
    tracked, renamed, untracked = build(), build(), build()
    track_handlers(tracked)
    track_handlers(renamed, names={menu: "main_menu_handler"})
    for application in (tracked, renamed, untracked):
        application.add_handler(handler)
        feed(application, message("hello"))
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1, ("main_menu_handler", "ok"): 1}


def test_an_application_is_not_kept_alive() -> None:
    application, handler = build(), MessageHandler(filters.ALL, menu)
    application.add_handler(handler)
    track_handlers(application)
    feed(application, message("hello"))
    gone: list[Callable[[], object]] = [weakref.ref(application), weakref.ref(application.context_types.context)]
    del application
    gc.collect()
    assert handler.callback == menu
    assert [one() for one in gone] == [None, None]


DISH, DRINK, PAYING, PAID = range(4)


def conversation() -> ConversationHandler[Any]:
    """Return a conversation that orders, with another inside of it that takes the payment."""

    async def order(update: Update, context: Context) -> int:
        return DISH

    async def dish(update: Update, context: Context) -> int:
        return DRINK

    async def drink(update: Update, context: Context) -> int:
        return PAYING

    async def pay(update: Update, context: Context) -> int:
        return PAID

    async def receipt(update: Update, context: Context) -> int:
        return ConversationHandler.END

    async def pardon(update: Update, context: Context) -> None:
        pass

    text = filters.TEXT & ~filters.COMMAND & ~filters.Text(["what?"])
    payment = ConversationHandler(
        entry_points=[CommandHandler("pay", pay)],
        states={PAID: [MessageHandler(text, receipt)]},
        fallbacks=[MessageHandler(filters.ALL, pardon)],
        map_to_parent={ConversationHandler.END: ConversationHandler.END},
    )
    return ConversationHandler(
        entry_points=[CommandHandler("order", order)],
        states={
            DISH: [MessageHandler(text, dish)],
            DRINK: [MessageHandler(text, drink, block=False)],
            PAYING: [payment],
        },
        fallbacks=[MessageHandler(filters.ALL, pardon)],
    )


def test_conversations_are_covered_with_all_that_is_in_them(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        async with running(application):
            for text in ("nothing", "/order", "what?", "soup", "water", "/pay", "what?", "thanks", "thanks"):
                await application.process_update(Update.de_json(message(text), application.bot))
                await asyncio.gather(*(task for task in asyncio.all_tasks() if "non_blocking" in task.get_name()))

    application = build()
    application.add_handler(conversation())
    track_handlers(application)
    asyncio.run(scenario())
    assert counted(recorded_metrics) == {
        ("order_handler", "ok"): 1,
        ("dish_handler", "ok"): 1,
        ("drink_handler", "ok"): 1,
        ("pay_handler", "ok"): 1,
        ("pardon_handler", "ok"): 2,
        ("receipt_handler", "ok"): 1,
    }


def test_a_state_that_is_added_later_and_a_conversation_that_leads_back_to_itself(
    recorded_metrics: RecordedMetrics,
) -> None:
    application, talk = build(), conversation()
    application.add_handler(talk)
    track_handlers(application)
    feed(
        application,
        message("/order"),
        lambda: talk.states[DISH].insert(0, MessageHandler(filters.ALL, menu)),
        lambda: talk.states[PAYING].append(talk),
        message("soup"),
    )
    assert counted(recorded_metrics) == {("order_handler", "ok"): 1, ("menu_handler", "ok"): 1}


def test_the_end_of_a_conversation_that_timed_out_is_a_handler_and_no_job(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        async with running(application):
            await application.process_update(Update.de_json(message("/order"), application.bot))
            async with asyncio.timeout(PATIENCE):
                await over.wait()

    async def order(update: Update, context: Context) -> int:
        return DISH

    async def timed_out(update: Update, context: Context) -> None:
        over.set()

    over = asyncio.Event()
    application = build()
    application.add_handler(
        ConversationHandler(
            entry_points=[CommandHandler("order", order)],
            states={DISH: [], ConversationHandler.TIMEOUT: [TypeHandler(Update, timed_out)]},
            fallbacks=[],
            conversation_timeout=0.01,
        )
    )
    track_handlers(application)
    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("order_handler", "ok"): 1, ("timed_out_handler", "ok"): 1}


class Silent(BaseHandler[Update, Context, None]):
    """A handler that has no callback, or one that can't be set."""

    def __init__(self, callback: Any = None) -> None:
        self.given = callback
        self.block = True

    def check_update(self, update: object) -> bool:
        return True

    async def handle_update(self, update: Any, application: Any, check_result: object, context: Any) -> None:
        if self.given:
            await self.given(update, context)


class Fixed(Silent):
    callback = property(lambda self: self.given)


class Contextless(BaseHandler[Update, Context, None]):
    """A handler that passes nothing on but the update."""

    def check_update(self, update: object) -> bool:
        return True

    async def handle_update(self, update: Any, application: Any, check_result: object, context: Any) -> None:
        callback: Any = self.callback
        await callback(update)


def test_handlers_of_the_application_s_own_are_covered_as_far_as_they_have_a_callback(
    recorded_metrics: RecordedMetrics,
) -> None:
    class Own(BaseHandler[Update, Context, str]):
        def check_update(self, update: object) -> bool:
            return True

    application = build()
    application.add_handler(Silent(), 1)
    application.add_handler(Fixed(menu), 2)
    application.add_handler(Own(menu), 3)
    application.add_handler(Contextless(partial(menu_with_defaults, context=None)), 4)
    track_handlers(application)
    feed(application, message("hello"))
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1, ("menu_with_defaults_handler", "ok"): 1}


class Visit(Context):
    """A context of the application's own."""


class Slotted(App):
    __slots__ = ("processed",)


@pytest.mark.parametrize("kind", [Visit, CallbackContext])
@pytest.mark.parametrize("own", [Slotted, Application])
def test_applications_and_contexts_of_the_user_s_own_stay_what_they_are(
    own: type[App], kind: type[Context], recorded_metrics: RecordedMetrics
) -> None:
    async def broken(update: object, context: Context) -> None:
        seen.append(type(context))
        raise ValueError("broken")

    async def note_error(update: object, context: Context) -> None:
        seen.append(type(context))

    seen: list[type] = []
    application = build(lambda builder: builder.application_class(own).context_types(ContextTypes(kind)))
    application.add_handler(MessageHandler(filters.ALL, broken))
    application.add_error_handler(note_error)
    before = repr(application)
    track_handlers(application)
    assert (type(application), repr(application)) == (own, before)
    shown = application.context_types.context
    assert issubclass(shown, kind)
    assert (repr(shown), shown.__doc__) == (repr(kind), kind.__doc__)
    feed(application, message("hello"))
    assert counted(recorded_metrics) == {("broken_handler", "error"): 1}
    assert seen == [kind, kind]


@pytest.mark.parametrize("callback", [menu, Shop(), Shop().cart, partial(menu)])
def test_a_handler_stays_what_it_is(callback: Any) -> None:
    application, handler = build(), MessageHandler(filters.ALL, callback)
    application.add_handler(handler)
    track_handlers(application)
    before = (repr(handler), inspect.iscoroutinefunction(handler.callback), inspect.signature(handler.callback))
    feed(application, message("hello"))
    assert handler.callback is not callback
    assert handler.callback == callback
    assert hash(handler.callback) == hash(callback)
    assert isinstance(handler.callback, type(callback))
    assert before == (
        repr(handler),
        inspect.iscoroutinefunction(handler.callback),
        inspect.signature(handler.callback),
    )
    application.remove_handler(handler)
    assert application.handlers == {}


# With and without tracking


class SoldOutError(Exception):
    pass


def shop(journal: list[str], *, track: str) -> App:
    """Return a bot whose handlers end in every way that there is."""

    async def before(update: Update, context: Context) -> None:
        journal.append(f"before {update.effective_message and update.effective_message.text}")

    async def start(update: Update, context: Context) -> str:
        journal.append(f"start {context.args} {sorted(vars(context) if hasattr(context, '__dict__') else [])}")
        return "ignored"

    async def stop(update: Update, context: Context) -> None:
        journal.append("stop")
        raise ApplicationHandlerStop

    async def soup(update: Update, context: Context) -> None:
        journal.append("soup")
        raise SoldOutError("soup")

    async def slowly(update: Update, context: Context) -> None:
        await asyncio.sleep(0)
        journal.append("slowly")
        raise SoldOutError("slowly")

    async def after(update: Update, context: Context) -> None:
        journal.append("after")

    async def sorry(update: object, context: Context) -> None:
        coroutine: Any = context.coroutine
        journal.append(f"sorry {context.error!r} {coroutine and coroutine.__qualname__} {context.job}")
        if str(context.error) == "soup":
            raise ApplicationHandlerStop

    application = build()
    if track == "first":
        track_handlers(application)
    application.add_handler(TypeHandler(Update, before), -1)
    application.add_handler(CommandHandler("start", start))
    application.add_handler(MessageHandler(filters.Text(["stop"]), stop))
    application.add_handler(MessageHandler(filters.Text(["soup"]), soup))
    application.add_handler(MessageHandler(filters.Text(["slowly"]), slowly, block=False))
    application.add_handler(conversation())
    application.add_handler(TypeHandler(Update, after), 1)
    application.add_error_handler(sorry)
    if track == "last":
        track_handlers(application)
    return application


VISIT: list[Callable[[], dict[str, Any]]] = [
    *(partial(message, text) for text in ("/start now", "stop", "soup", "slowly", "nothing", "/order", "tea")),
    partial(pressed, "order"),
    partial(inline, "coffee"),
]


@pytest.mark.parametrize("track", ["first", "last"])
def test_with_and_without_tracking_the_same_happens_in_the_same_order(
    track: str, recorded_metrics: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plain: list[str] = []
    feed(shop(plain, track=""), *(make() for make in VISIT))
    expected = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert counted(recorded_metrics) == {}
    journal: list[str] = []
    feed(shop(journal, track=track), *(make() for make in VISIT))
    assert journal == plain
    assert [record.getMessage() for record in caplog.records] == expected
    assert "sorry SoldOutError('slowly') BaseHandler.handle_update None" in journal
    assert counted(recorded_metrics) == {
        ("before_handler", "ok"): 9,
        ("start_handler", "ok"): 1,
        ("stop_handler", "ok"): 1,
        ("soup_handler", "error"): 1,
        ("slowly_handler", "error"): 1,
        ("order_handler", "ok"): 1,
        ("dish_handler", "ok"): 1,
        ("after_handler", "ok"): 7,
    }


@pytest.mark.parametrize("block", [True, False])
def test_error_handlers_see_the_very_exception_and_are_not_counted(
    block: bool, recorded_metrics: RecordedMetrics
) -> None:
    raised = ValueError("this very object")
    seen: list[BaseException | None] = []

    async def broken(update: Update, context: Context) -> None:
        raise raised

    async def note(update: object, context: Context) -> None:
        seen.append(context.error)

    application = build()
    application.add_handler(MessageHandler(filters.ALL, broken, block=block))
    application.add_error_handler(note)
    track_handlers(application)
    feed(application, message("hello"))
    assert len(seen) == 1
    assert seen[0] is raised
    assert raised.__context__ is None
    assert counted(recorded_metrics) == {("broken_handler", "error"): 1}


@pytest.mark.parametrize("block", [True, False])
def test_an_action_lasts_until_the_handler_ends_and_may_be_cancelled(
    block: bool, recorded_metrics: RecordedMetrics
) -> None:
    async def wait(update: Update, context: Context) -> None:
        started.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with running(application):
            processing = asyncio.create_task(
                application.process_update(Update.de_json(message("hello"), application.bot)), name="blocking"
            )
            await started.wait()
            assert counted(recorded_metrics) == {}
            assert processing.done() is not block
            (stuck,) = (task for task in asyncio.all_tasks() if "blocking" in task.get_name())
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck

    started = asyncio.Event()
    application = build()
    application.add_handler(MessageHandler(filters.ALL, wait, block=block))
    track_handlers(application)
    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("wait_handler", "cancelled"): 1}


def test_concurrent_updates_count_each_for_itself(recorded_metrics: RecordedMetrics) -> None:
    waiting, everybody = 0, asyncio.Event()

    async def wait(update: Update, context: Context) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            everybody.set()
        await everybody.wait()
        current_action().size(1)

    async def scenario() -> None:
        async with running(application):
            for _ in range(20):
                await application.update_queue.put(Update.de_json(message("hello"), application.bot))
            await application.update_queue.join()

    application = build(lambda builder: builder.concurrent_updates(32))
    application.add_handler(MessageHandler(filters.ALL, wait))
    track_handlers(application)
    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("wait_handler", "ok"): 20}
    recorded_metrics.assert_metric("genapp_action_size_total", 20, name="wait_handler")


# Jobs


class Jobs:
    """Callbacks of jobs, and what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.changed = asyncio.Condition()

    async def ran(self, what: str) -> None:
        async with self.changed:
            self.done.append(what)
            self.changed.notify_all()

    async def until(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: len(self.done) >= times)

    async def remind(self, context: Context) -> None:
        await self.ran(f"remind {context.job and context.job.data}")

    async def clean_up_task(self, context: Context) -> None:
        await self.ran("clean up")

    async def broken(self, context: Context) -> None:
        raise ValueError("broken")

    @action_tracking_decorator("by_hand_task")
    async def by_hand(self, context: Context) -> None:
        await self.ran("by hand")

    async def __call__(self, context: Context) -> None:
        await self.ran("object")

    async def note_error(self, update: object, context: Context) -> None:
        assert context.job is not None
        await self.ran(f"error {context.error!r} of {context.job.name}")


def schedule(application: App, track: bool) -> tuple[Jobs, Awaitable[None]]:
    jobs, queue = Jobs(), application.job_queue
    assert queue is not None
    application.add_error_handler(jobs.note_error)
    queue.run_once(jobs.remind, 0, data="before", name="chat 42")
    if track:
        track_handlers(application, exclude=[jobs.clean_up_task] if len(jobs.done) else [])

    async def scenario() -> None:
        queue.run_once(jobs.remind, 0, data="not started yet")
        async with running(application):
            await jobs.until(2)
            repeated = queue.run_repeating(jobs.clean_up_task, interval=0.01, first=0)
            await jobs.until(4)
            repeated.schedule_removal()
            already = len(jobs.done)
            queue.run_once(jobs.broken, 0, name="broken job")
            await jobs.until(already + 1)
            queue.run_once(jobs.by_hand, 0)
            await jobs.until(already + 2)
            queue.run_once(jobs, 0)
            await jobs.until(already + 3)
            far = queue.run_daily(jobs.remind, dt.time(3), data="by hand")
            assert far.callback == jobs.remind
            await far.run(application)
            assert "Jobs.remind" in repr(far) or "remind" in repr(far)

    return jobs, scenario()


async def scheduled(*, track: bool) -> list[str]:
    jobs, scenario = schedule(build(), track)
    await scenario
    return jobs.done


def test_jobs_that_were_added_before_and_later_count(recorded_metrics: RecordedMetrics) -> None:
    def different(done: list[str]) -> list[str]:
        return sorted(set(done))

    plain = asyncio.run(scheduled(track=False))
    assert counted(recorded_metrics) == {("by_hand_task", "ok"): 1}
    with recorded_metrics.delta() as tracked:
        done = asyncio.run(scheduled(track=True))
    assert different(done) == different(plain)
    cleaned = done.count("clean up")
    assert counted(tracked) == {
        ("remind_task", "ok"): 3,
        ("clean_up_task", "ok"): cleaned,
        ("broken_task", "error"): 1,
        ("by_hand_task", "ok"): 1,
        ("jobs_task", "ok"): 1,
    }
    assert cleaned >= 2
    assert "error ValueError('broken') of broken job" in done


def test_jobs_may_be_given_names_or_left_out_and_count_once(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        jobs, application = Jobs(), build()
        track_handlers(application, names={jobs.remind: "reminder_task"}, exclude=[jobs.clean_up_task])
        track_handlers(application)
        queue = application.job_queue
        assert queue is not None
        async with running(application):
            for callback in (jobs.remind, jobs.clean_up_task):
                queue.run_once(callback, 0)
            await jobs.until(2)

    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("reminder_task", "ok"): 1}


def test_a_job_that_was_scheduled_in_a_running_application_before_it_was_tracked(
    recorded_metrics: RecordedMetrics,
) -> None:
    async def scenario() -> None:
        jobs, application = Jobs(), build()
        queue = application.job_queue
        assert queue is not None
        async with running(application):
            job = queue.run_daily(jobs.remind, dt.time(3))
            track_handlers(application)
            await job.run(application)

    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("remind_task", "ok"): 1}


def test_a_job_that_is_run_by_hand_in_an_application_that_has_not_started(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        jobs, application = Jobs(), build()
        track_handlers(application)
        queue = application.job_queue
        assert queue is not None
        await queue.run_once(jobs.remind, 0).run(application)

    asyncio.run(scenario())
    assert counted(recorded_metrics) == {("remind_task", "ok"): 1}


async def remind_everybody(context: Context) -> None:
    await context.bot_data["jobs"].ran(f"remind {context.job and context.job.data}")


class StoreOfJobs(SQLAlchemyJobStore):  # type: ignore[misc]
    """Keeps jobs in a database, where the application can't go with them."""

    def __init__(self, application: App, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder / 'jobs.sqlite'}", engine_options={"poolclass": NullPool})
        self.queue = application.job_queue

    def add_job(self, job: ScheduledJob) -> None:
        super().add_job(self.without_application(job))

    def update_job(self, job: ScheduledJob) -> None:
        super().update_job(self.without_application(job))

    def without_application(self, job: ScheduledJob) -> ScheduledJob:
        kept: ScheduledJob = ScheduledJob.__new__(ScheduledJob)
        ours: Job[Any] = Job.from_aps_job(job)
        kept.__setstate__({**job.__getstate__(), "args": (ours.callback, ours.data)})
        return kept

    def _reconstitute_job(self, job_state: bytes) -> ScheduledJob:
        job = super()._reconstitute_job(job_state)
        job.args = (self.queue, Job(*job.args))
        Job.from_aps_job(job)
        return job


async def restarted(folder: Path, *, track: bool) -> list[str]:
    """Schedule a job, stop, and have another application run it; return what was done."""
    done: list[str] = []
    for when in (3600.0, 0.0):
        application, jobs = build(), Jobs()
        application.bot_data["jobs"] = jobs
        queue = application.job_queue
        assert queue is not None
        queue.scheduler.add_jobstore(StoreOfJobs(application, folder))
        if track:
            track_handlers(application)
        queue.run_once(remind_everybody, when, data=f"after {when}")
        async with running(application):
            if not when:
                for job in queue.jobs():
                    job.job.modify(next_run_time=dt.datetime.now(dt.UTC))
                await jobs.until(2)
        done += jobs.done
    return sorted(done)


def test_jobs_that_a_database_brings_back_count_and_are_kept_as_they_were(
    tmp_path: Path, recorded_metrics: RecordedMetrics
) -> None:
    for track in (False, True):
        folder = tmp_path / str(track)
        folder.mkdir()
        assert asyncio.run(restarted(folder, track=track)) == ["remind after 0.0", "remind after 3600.0"]
        assert counted(recorded_metrics) == ({("remind_everybody_task", "ok"): 2} if track else {})


def test_a_job_that_is_under_way_at_shutdown_is_cancelled(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        application, started = build(), asyncio.Event()
        track_handlers(application)
        queue = application.job_queue
        assert queue is not None

        async def wait(context: Context) -> None:
            started.set()
            await asyncio.Event().wait()

        await application.initialize()
        await queue.start()
        queue.run_once(wait, 0)
        await started.wait()
        await queue.stop(wait=False)
        await application.shutdown()

    asyncio.run(scenario())  # which cancels what still runs
    assert counted(recorded_metrics) == {("wait_task", "cancelled"): 1}


def test_what_else_is_in_the_scheduler_is_left_alone(recorded_metrics: RecordedMetrics) -> None:
    async def scenario() -> None:
        application, done = build(), asyncio.Event()
        queue = application.job_queue
        assert queue is not None
        queue.scheduler.add_job(lambda: None)
        track_handlers(application)
        async with running(application):
            queue.scheduler.add_job(lambda one, other: done.set(), args=["not", "one of ours"])
            await done.wait()

    asyncio.run(scenario())
    assert counted(recorded_metrics) == {}


def test_an_application_without_a_job_queue(recorded_metrics: RecordedMetrics) -> None:
    application = build(lambda builder: builder.job_queue(None))
    application.add_handler(MessageHandler(filters.ALL, menu))
    track_handlers(application)
    feed(application, message("hello"))
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1}


# By polling and by webhook


def bot_application(api: TelegramApi, request: type[HTTPXRequest]) -> App:
    return (
        ApplicationBuilder()
        .token(TOKEN)
        .base_url(f"{api.url}/bot")
        .base_file_url(f"{api.url}/file/bot")
        .request(request())
        .get_updates_request(request(connection_pool_size=1))
        .build()
    )


def add_talk(application: App) -> None:
    async def menu(update: Update, context: Context) -> None:
        assert update.message is not None
        await update.message.reply_text("Menu")

    async def correction(update: Update, context: Context) -> None:
        assert update.edited_message is not None
        await update.edited_message.reply_text("Corrected")

    async def order(update: Update, context: Context) -> None:
        assert update.callback_query is not None
        await update.callback_query.answer("Ordered")
        await context.bot.send_message(42, "Ordered")

    async def search(update: Update, context: Context) -> None:
        assert update.inline_query is not None
        await update.inline_query.answer([])

    async def broken(update: Update, context: Context) -> None:
        raise ValueError("broken")

    async def later(update: Update, context: Context) -> None:
        queue = context.job_queue
        assert queue is not None
        queue.run_once(remind, 0, chat_id=42)

    async def remind(context: Context) -> None:
        await context.bot.send_message(42, "Reminded")

    async def apologise(update: object, context: Context) -> None:
        await context.bot.send_message(42, f"Sorry: {context.error}")

    application.add_handler(MessageHandler(filters.UpdateType.EDITED_MESSAGE, correction))
    application.add_handler(CommandHandler("menu", menu, block=False))
    application.add_handler(CallbackQueryHandler(order, "^order$"))
    application.add_handler(InlineQueryHandler(search))
    application.add_handler(MessageHandler(filters.Text(["break"]), broken))
    application.add_handler(MessageHandler(filters.Text(["later"]), later))
    application.add_error_handler(apologise)


TALK: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (partial(message, "/menu"), "sendMessage"),
    (partial(message, "/menu", "edited_message"), "sendMessage"),
    (partial(pressed, "order"), "sendMessage"),
    (partial(pressed, "other"), ""),
    (partial(inline, "coffee"), "answerInlineQuery"),
    (partial(message, "break"), "sendMessage"),
    (partial(message, "later"), "sendMessage"),
]
TALKED = {
    ("menu_handler", "ok"): 1,
    ("correction_handler", "ok"): 1,
    ("order_handler", "ok"): 1,
    ("search_handler", "ok"): 1,
    ("broken_handler", "error"): 1,
    ("later_handler", "ok"): 1,
    ("remind_task", "ok"): 1,
}
CALLS = {"sendMessage": 5, "answerCallbackQuery": 1, "answerInlineQuery": 1, "getMe": 1, "deleteWebhook": 1}
SAID = ["Menu", "Corrected", "Ordered", "Sorry: broken", "Reminded"]


async def talk(api: TelegramApi) -> list[int]:
    statuses: list[int] = []
    for make, answer in TALK:
        before = api.times(answer)
        statuses += await api.push(make())
        if answer:
            await api.called(answer, before + 1)
    return statuses


async def talk_by_polling(*, track: bool) -> TelegramApi:
    async with telegram_api() as api:
        application = bot_application(api, TrackedRequest if track else HTTPXRequest)
        if track:
            track_handlers(application)
        add_talk(application)
        async with running(application):
            assert application.updater is not None
            await application.updater.start_polling()
            await talk(api)
            await api.fetched()
            api.hurried = True  # since python-telegram-bot asks once more, as long
            await application.updater.stop()
        return api


def test_by_polling(recorded_metrics: RecordedMetrics) -> None:
    plain = asyncio.run(talk_by_polling(track=False))
    assert counted(recorded_metrics) == {}
    assert recorded_metrics.exchanges == []
    api = asyncio.run(talk_by_polling(track=True))
    assert api.texts == plain.texts == SAID
    calls = {method: times for method, times in api.methods.items() if method != "getUpdates"}
    assert calls == CALLS
    assert counted(recorded_metrics) == TALKED
    for resource, times in CALLS.items():
        recorded_metrics.assert_http(resource=resource, method="POST", status=200, app_type="telegram_api", times=times)
    recorded_metrics.assert_http(resource="getUpdates", status="cancelled")  # the long poll, when the bot stopped
    recorded_metrics.assert_http(resource="getUpdates", status=200, times=api.times("getUpdates") - 1)
    assert len(recorded_metrics.exchanges) == len(api.calls)


async def talk_by_webhook(*, track: bool) -> tuple[TelegramApi, list[int]]:
    async with telegram_api() as api:
        application = bot_application(api, TrackedRequest if track else HTTPXRequest)
        add_talk(application)
        if track:
            track_handlers(application)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            address = f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
            async with running(application):
                assert application.updater is not None
                await application.updater.start_webhook(url_path="hook", webhook_url=address, unix=listening)
                statuses = await talk(api)
                await application.updater.stop()
        return api, statuses


def test_by_webhook(recorded_metrics: RecordedMetrics) -> None:
    plain, expected = asyncio.run(talk_by_webhook(track=False))
    assert counted(recorded_metrics) == {}
    api, statuses = asyncio.run(talk_by_webhook(track=True))
    assert statuses == expected == [200] * len(TALK)
    assert api.texts == plain.texts == SAID
    calls = {method: times for method, times in CALLS.items() if method != "deleteWebhook"}
    assert api.methods == plain.methods == {**calls, "setWebhook": 1}
    assert counted(recorded_metrics) == TALKED
    for resource, times in api.methods.items():
        recorded_metrics.assert_http(resource=resource, status=200, app_type="telegram_api", times=times)


# HTTP metrics


def with_bot(scenario: Callable[[Bot, TelegramApi], Awaitable[Any]], request: HTTPXRequest) -> Any:
    async def run() -> Any:
        async with (
            telegram_api() as api,
            Bot(TOKEN, f"{api.url}/bot", f"{api.url}/file/bot", request=request) as bot,
        ):
            return await scenario(bot, api)

    return asyncio.run(run())


async def exchange_files(bot: Bot, api: TelegramApi) -> Any:
    await bot.send_document(42, InputFile(b"x" * 5000, "bill.txt"))
    file = await bot.get_file("f1")
    return bytes(await file.download_as_bytearray()), api.files


def test_uploads_and_downloads_count_with_their_bytes(recorded_metrics: RecordedMetrics) -> None:
    expected = with_bot(exchange_files, HTTPXRequest())
    assert recorded_metrics.exchanges == []
    assert with_bot(exchange_files, TrackedRequest()) == expected == (CONTENT, {"bill.txt": 5000})
    _, upload, asked, download = recorded_metrics.exchanges
    assert upload.resource == "sendDocument"
    assert upload.request_bytes > 5000
    assert upload.response_bytes > 100
    assert (asked.resource, asked.request_bytes) == ("getFile", len("file_id=f1"))
    assert download == HttpExchange("GET", "200", "file/{path}", "telegram_api", 0, len(CONTENT))


async def fail(bot: Bot, api: TelegramApi) -> list[str]:
    api.faults["sendMessage"] = (400, "Bad Request: chat not found")
    api.silent.add("getChat")
    failures: list[str] = []
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: bot.send_message(42, "hello"),
        lambda: bot.get_chat(42, read_timeout=0.2),
        lambda: Bot(TOKEN, "http://127.0.0.1:1/bot", request=bot.request).get_me(),
    ]
    for call in calls:
        with pytest.raises(NetworkError) as caught:
            await call()
        failures.append(f"{type(caught.value).__name__} {caught.value} {caught.value.__cause__!r}")
    waiting = asyncio.create_task(bot.get_chat(42))
    await api.called("getChat", 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    return failures


def test_failures_count_by_status_and_are_raised_as_without_tracking(recorded_metrics: RecordedMetrics) -> None:
    expected = with_bot(fail, HTTPXRequest())
    assert with_bot(fail, TrackedRequest()) == expected
    assert [failure.split()[0] for failure in expected] == [
        BadRequest.__name__,
        TimedOut.__name__,
        NetworkError.__name__,
    ]
    assert [(one.resource, one.status) for one in recorded_metrics.exchanges] == [
        ("getMe", "200"),
        ("sendMessage", "400"),
        ("getChat", "timeout"),
        ("getMe", "error"),
        ("getChat", "cancelled"),
    ]


def test_hooks_and_options_of_the_user_are_kept(recorded_metrics: RecordedMetrics) -> None:
    seen: list[str] = []
    bodies: list[object] = []

    async def sent(request: httpx.Request) -> None:
        bodies.append(request.stream)
        seen.append(f"sent {request.url.path.rsplit('/')[-1]}")

    async def received(response: httpx.Response) -> None:
        assert response.request.stream is bodies[-1]
        seen.append(f"received {response.status_code} {(await response.aread())[:10]!r}")

    request = TrackedRequest(3, httpx_kwargs={"event_hooks": {"request": [sent], "response": [received]}})
    with_bot(lambda bot, api: bot.send_message(42, "hello"), request)
    assert seen == ["sent getMe", "received 200 b'{\"ok\": tru'", "sent sendMessage", "received 200 b'{\"ok\": tru'"]
    recorded_metrics.assert_http(status=200, times=2)


def test_redirects_count_each_for_itself(recorded_metrics: RecordedMetrics) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "moved":
            return httpx.Response(308, headers={"Location": str(request.url.copy_with(host="here"))})
        return httpx.Response(200, content=b"received %d" % len(request.read()))

    async def scenario(request: HTTPXRequest) -> tuple[int, bytes]:
        async with request:
            return await request.do_request(f"http://moved/bot{TOKEN}/sendMessage", "POST")

    options = {"transport": httpx.MockTransport(answer), "follow_redirects": True}
    expected = asyncio.run(scenario(HTTPXRequest(httpx_kwargs=options)))
    assert asyncio.run(scenario(TrackedRequest(httpx_kwargs=options))) == expected
    assert recorded_metrics.exchanges == [
        HttpExchange("POST", "308", "sendMessage", "telegram_api", 0, 0),
        HttpExchange("POST", "200", "sendMessage", "telegram_api", 0, len(expected[1])),
    ]


def test_a_request_that_a_hook_of_the_user_sends_is_another_s(recorded_metrics: RecordedMetrics) -> None:
    """The hooks of a client that was not called through ``do_request`` count nothing."""
    from llm_common.integrations.telegram import _answered, _begun

    async def scenario() -> int:
        hooks = {"request": [_begun], "response": [_answered]}
        transport = httpx.MockTransport(lambda request: httpx.Response(204))
        async with TrackedRequest(httpx_kwargs={"transport": transport}) as request:
            await request.do_request(f"http://here/bot{TOKEN}/getMe", "GET")
        async with httpx.AsyncClient(event_hooks=hooks, transport=transport) as client:  # type: ignore[arg-type]
            return (await client.get("http://here/")).status_code

    assert asyncio.run(scenario()) == 204
    assert recorded_metrics.exchanges == [HttpExchange("GET", "204", "getMe", "telegram_api", 0, 0)]


def test_the_proxies_of_the_environment_stay_in_force(
    recorded_metrics: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> TelegramApi:
        async with telegram_api() as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            async with Bot(TOKEN, "http://telegram.invalid/bot", request=TrackedRequest()):
                return proxy

    assert asyncio.run(scenario()).methods == {"getMe": 1}
    recorded_metrics.assert_http(resource="getMe", status=200, app_type="telegram_api")


def test_no_label_of_any_metric_has_the_token(scrape: Scrape) -> None:
    asyncio.run(talk_by_polling(track=True))
    with_bot(exchange_files, TrackedRequest())
    text = str(scrape())
    for word in ("sendMessage", "menu_handler", "remind_task"):
        assert word in text
    for secret in (TOKEN, SECRET, TOKEN.split(":")[0]):
        assert secret not in text
