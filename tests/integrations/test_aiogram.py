"""aiogram: real dispatchers and bots, fed directly, by polling and by webhook, against a Bot API on loopback."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiogram import BaseMiddleware, Bot, Dispatcher, F, Router, flags
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.dispatcher.event.bases import UNHANDLED, CancelHandler, SkipHandler
from aiogram.exceptions import TelegramBadRequest, TelegramNetworkError
from aiogram.filters import Command, CommandStart, StateFilter
from aiogram.fsm.context import FSMContext
from aiogram.fsm.scene import Scene, SceneRegistry, on
from aiogram.fsm.state import State, StatesGroup
from aiogram.handlers import MessageHandler
from aiogram.methods import SendMessage
from aiogram.types import BufferedInputFile, ErrorEvent, Message, Update
from aiogram.webhook.aiohttp_server import SimpleRequestHandler, setup_application
from aiohttp import web

from llm_common import action_tracking_decorator, current_action
from llm_common.errors import TrackingError
from llm_common.integrations.aiogram import ActionTrackingMiddleware, TrackedSession, track_call
from llm_common.testing import HttpExchange, RecordedMetrics, record_metrics
from scraping import Scrape
from telegram_api import CONTENT, SECRET, TOKEN, TelegramApi, inline, message, poll, pressed, serving, telegram_api

UNHANDLED_UPDATE = ("unhandled_update_handler", "ok")


def counted(recorded: RecordedMetrics) -> dict[tuple[str, str], int]:
    return Counter((event.name, str(event.status)) for event in recorded.events)


def feed(dispatcher: Dispatcher, *updates: dict[str, Any]) -> list[Any]:
    """Feed updates one after the other; return what each gives back, or raises."""

    async def all_of_them() -> list[Any]:
        bot = Bot(TOKEN)
        results = []
        for one in updates:
            try:
                results.append(await dispatcher.feed_update(bot, Update.model_validate(one)))
            except Exception as problem:
                results.append(problem)
        return results

    return asyncio.run(all_of_them())


def tracked() -> Dispatcher:
    dispatcher = Dispatcher()
    ActionTrackingMiddleware().setup(dispatcher)
    return dispatcher


# Names


async def menu(message: Message) -> str:
    return "menu"


async def menu_handler(message: Message) -> str:
    return "menu_handler"


class OrderHandler(MessageHandler):
    async def handle(self) -> str:
        return "order"


class OrderStatus(MessageHandler):
    async def handle(self) -> str:
        return "status"


class Shop:
    async def cart(self, message: Message) -> str:
        return "cart"

    def __call__(self, message: Message) -> str:
        return "shop"


def in_a_thread(message: Message) -> str:
    return "thread"


async def in_language(message: Message, language: str) -> str:
    return language


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (menu, "menu_handler"),
        (menu_handler, "menu_handler"),
        (OrderHandler, "order_handler"),
        (OrderStatus, "order_status_handler"),
        (Shop().cart, "cart_handler"),
        (Shop(), "shop_handler"),
        (partial(in_language, language="en"), "in_language_handler"),
        (in_a_thread, "in_a_thread_handler"),
        (lambda message: "lambda", "lambda_handler"),
    ],
)
def test_an_action_is_named_after_what_handles_the_update(
    handler: Any, name: str, recorded_metrics: RecordedMetrics
) -> None:
    plain, dispatcher = Dispatcher(), tracked()
    for each in (plain, dispatcher):
        each.message.register(handler)
    (result,) = feed(dispatcher, message("hello"))
    assert [result] == feed(plain, message("hello"))
    assert counted(recorded_metrics) == {(name, "ok"): 1}


@pytest.mark.parametrize(
    ("flag", "name"),
    [("main_menu_handler", "main_menu_handler"), (True, "menu_handler"), (None, "menu_handler"), (False, None)],
)
def test_a_flag_names_the_action_or_opts_out(flag: Any, name: str | None, recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()
    dispatcher.message.register(menu, flags={"action_tracking": flag})
    assert feed(dispatcher, message("hello")) == ["menu"]
    assert counted(recorded_metrics) == ({(name, "ok"): 1} if name else {})


def test_a_flag_may_be_a_decorator(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()

    @dispatcher.message(F.text == "hello")
    @flags.action_tracking("greeting_handler")
    async def greet(message: Message) -> None:
        pass

    feed(dispatcher, message("hello"))
    assert counted(recorded_metrics) == {("greeting_handler", "ok"): 1}


@pytest.mark.parametrize("flag", ["", 7])
def test_a_flag_that_is_no_name_is_told_of_and_the_function_names_the_action(
    flag: object, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = tracked()
    dispatcher.message.register(menu, flags={"action_tracking": flag})
    with record_metrics(strict=False) as recorded:
        assert feed(dispatcher, message("hello")) == ["menu"]
    assert counted(recorded) == {("menu_handler", "ok"): 1}
    assert "accepted: the action's name, or False to leave it out" in caplog.text
    with record_metrics():
        assert isinstance(feed(dispatcher, message("hello"))[0], TrackingError)


class DecoratedShop:
    @action_tracking_decorator("cart_handler")
    async def cart(self, message: Message) -> None:
        pass

    @action_tracking_decorator("shop_handler")
    def __call__(self, message: Message) -> None:
        pass


class DecoratedOrder(MessageHandler):
    @action_tracking_decorator("order_handler")
    async def handle(self) -> None:
        pass


@action_tracking_decorator("main_menu_handler")
async def decorated_menu(message: Message) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (decorated_menu, "main_menu_handler"),
        (partial(decorated_menu), "main_menu_handler"),
        (action_tracking_decorator("main_menu_handler")(partial(menu)), "main_menu_handler"),
        (DecoratedShop().cart, "cart_handler"),
        (DecoratedShop(), "shop_handler"),
        (DecoratedOrder, "order_handler"),
    ],
)
def test_what_is_decorated_by_hand_is_not_counted_twice(
    handler: Any, name: str, recorded_metrics: RecordedMetrics
) -> None:
    dispatcher = tracked()
    dispatcher.message.register(handler, flags={"action_tracking": "another_handler"})
    feed(dispatcher, message("hello"))
    assert counted(recorded_metrics) == {(name, "ok"): 1}


def test_current_action_is_that_of_the_handler(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()

    @dispatcher.message()
    async def order(message: Message) -> None:
        current_action().size(3)
        current_action().to_fail("sold_out")

    feed(dispatcher, message("coffee"))
    recorded_metrics.assert_action("order_handler", status="error", size=3)


# What is covered


def test_routers_that_are_nested_and_included_later_are_covered(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, outer, inner, later = tracked(), Router(), Router(), Router()
    dispatcher.include_router(outer)
    outer.include_router(inner)
    outer.message.register(menu, Command("menu"))
    inner.callback_query.register(lambda query: "pressed", F.data == "order")
    later.inline_query.register(lambda query: "found")
    updates = [message("/menu"), pressed("order"), inline("coffee")]
    assert feed(dispatcher, *updates) == ["menu", "pressed", UNHANDLED]
    inner.include_router(later)
    assert feed(dispatcher, updates[-1]) == ["found"]
    assert counted(recorded_metrics) == {
        ("menu_handler", "ok"): 1,
        ("lambda_handler", "ok"): 2,
        UNHANDLED_UPDATE: 1,
    }


def test_every_kind_of_update_that_nothing_handles_counts_once(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, router = tracked(), Router()
    dispatcher.include_router(router)
    ActionTrackingMiddleware().setup(router)
    dispatcher.message.register(menu, Command("menu"))
    router.message.register(menu, Command("help"))
    updates = [message("/start"), message("/menu", "edited_message"), pressed("order"), inline("coffee"), poll()]
    assert feed(dispatcher, *updates) == [UNHANDLED] * 5
    assert counted(recorded_metrics) == {UNHANDLED_UPDATE: 5}


async def skip(message: Message) -> None:
    raise SkipHandler


async def pass_on(message: Message) -> Any:
    return UNHANDLED


@flags.action_tracking(False)
async def pass_on_uncounted(message: Message) -> Any:
    return UNHANDLED


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("handler", "own"),
    [
        (skip, {("skip_handler", "ok"): 1}),
        (pass_on, {("pass_on_handler", "ok"): 1}),
        (pass_on_uncounted, {}),
        (action_tracking_decorator("by_hand_handler")(pass_on), {("by_hand_handler", "ok"): 1}),
    ],
)
def test_an_update_that_a_handler_passes_on_is_not_unhandled_too(
    handler: Any, own: dict[tuple[str, str], int], nested: bool, recorded_metrics: RecordedMetrics
) -> None:
    dispatcher, router = tracked(), Router()
    dispatcher.include_router(router)
    (router if nested else dispatcher).message.register(handler)
    assert feed(dispatcher, message("hello")) == [UNHANDLED]
    assert counted(recorded_metrics) == own
    following = Router()
    following.message.register(menu)
    dispatcher.include_router(following)
    with recorded_metrics.delta() as passed_on:
        assert feed(dispatcher, message("hello")) == ["menu"]
    assert counted(passed_on) == own | {("menu_handler", "ok"): 1}


def test_an_update_of_a_kind_that_this_aiogram_does_not_know(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()
    with pytest.warns(RuntimeWarning, match="unknown update type"):
        assert feed(dispatcher, {"update_id": 1}) == [UNHANDLED]
    assert counted(recorded_metrics) == {UNHANDLED_UPDATE: 1}


def test_one_observer_alone_can_be_covered(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, router = Dispatcher(), Router()
    dispatcher.include_router(router)
    dispatcher.message.outer_middleware(ActionTrackingMiddleware())
    router.message.register(menu, Command("menu"))
    router.callback_query.register(lambda query: "pressed")
    updates = [message("/menu"), message("hello"), pressed("order"), poll()]
    assert feed(dispatcher, *updates) == ["menu", UNHANDLED, "pressed", UNHANDLED]
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1, UNHANDLED_UPDATE: 1}


def test_of_one_router_among_several_only_its_handlers_count(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, covered, other = Dispatcher(), Router(), Router()
    dispatcher.include_routers(covered, other)
    ActionTrackingMiddleware().setup(covered)
    covered.message.register(menu, Command("menu"))
    other.message.register(lambda message: "other", Command("other"))
    assert feed(dispatcher, message("/menu"), message("/other"), message("hello")) == ["menu", "other", UNHANDLED]
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1}


@pytest.mark.parametrize("order", ["outward", "inward"])
def test_a_call_counts_once_however_many_middlewares_there_are(order: str, recorded_metrics: RecordedMetrics) -> None:
    dispatcher, router, innermost = Dispatcher(), Router(), Router()
    dispatcher.include_router(router)
    router.include_router(innermost)
    innermost.message.register(menu, Command("menu"))
    places: list[Callable[[], Any]] = [
        lambda: ActionTrackingMiddleware().setup(dispatcher),
        lambda: ActionTrackingMiddleware().setup(dispatcher),
        lambda: dispatcher.message.outer_middleware(ActionTrackingMiddleware()),
        lambda: dispatcher.message.middleware(ActionTrackingMiddleware()),
        lambda: router.message.middleware(ActionTrackingMiddleware()),
        lambda: ActionTrackingMiddleware().setup(router),
        lambda: innermost.message.outer_middleware(ActionTrackingMiddleware()),
        lambda: innermost.message.middleware(track_call),
    ]
    for number, place in enumerate(places if order == "inward" else reversed(places), 1):
        place()
        with recorded_metrics.delta() as one:
            assert feed(dispatcher, message("/menu"), message("hello")) == ["menu", UNHANDLED]
        assert counted(one)["menu_handler", "ok"] == 1
        root_is_covered = order == "inward" or number > 5
        assert counted(one).get(UNHANDLED_UPDATE, 0) == root_is_covered


def test_as_an_inner_middleware_it_counts_what_is_handled(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, router = Dispatcher(), Router()
    dispatcher.include_router(router)
    dispatcher.message.middleware(ActionTrackingMiddleware())
    router.message.register(menu, Command("menu"))
    assert feed(dispatcher, message("/menu"), message("hello"), message("/menu")) == ["menu", UNHANDLED, "menu"]
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 2}


@pytest.mark.parametrize("place", ["middleware", "outer_middleware"])
def test_on_updates_as_such_it_covers_the_whole_bot(place: str, recorded_metrics: RecordedMetrics) -> None:
    dispatcher, router = Dispatcher(), Router()
    dispatcher.include_router(router)
    getattr(dispatcher.update, place)(ActionTrackingMiddleware())
    router.message.register(menu, Command("menu"))
    assert feed(dispatcher, message("/menu"), inline("coffee")) == ["menu", UNHANDLED]
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 1, UNHANDLED_UPDATE: 1}


def test_the_same_update_fed_twice_counts_twice(recorded_metrics: RecordedMetrics) -> None:
    dispatcher, known, unknown = tracked(), message("/menu"), message("hello")
    dispatcher.message.register(menu, Command("menu"))
    feed(dispatcher, known, known, unknown, unknown)
    assert counted(recorded_metrics) == {("menu_handler", "ok"): 2, UNHANDLED_UPDATE: 2}


def test_updates_leave_no_more_middlewares_behind_than_the_first(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()
    feed(dispatcher, *(message("hello") for _ in range(5)))
    assert list(dispatcher.message.middleware) == [track_call]


def test_an_update_that_a_handler_feeds_in_turn_is_one_of_its_own(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()

    @dispatcher.message(F.text.startswith("again"))
    async def again(message: Message, bot: Bot) -> Any:
        left = message.text.removeprefix("again").strip() if message.text else ""
        following = await dispatcher.feed_update(bot, Update.model_validate(_message(left))) if left else "end"
        return "again", following

    assert feed(dispatcher, _message("again again nothing")) == [("again", ("again", UNHANDLED))]
    assert counted(recorded_metrics) == {("again_handler", "ok"): 2, UNHANDLED_UPDATE: 1}


_message = message


def test_without_a_dispatcher_a_router_that_is_used_by_hand_is_covered(recorded_metrics: RecordedMetrics) -> None:
    router = Router()
    ActionTrackingMiddleware().setup(router)
    router.message.register(lambda message, text: text, F.text == "hello")
    hello, other = (Update.model_validate(_message(text)) for text in ("hello", "other"))

    async def scenario() -> list[Any]:
        return [
            await router.propagate_event("message", one.event, text="hello", **extra)
            for one, extra in [(hello, {"event_update": hello}), (other, {"event_update": other}), (hello, {})]
        ]

    assert asyncio.run(scenario()) == ["hello", UNHANDLED, "hello"]
    assert counted(recorded_metrics) == {("lambda_handler", "ok"): 2, UNHANDLED_UPDATE: 1}


def test_called_outside_of_any_router_it_does_nothing(recorded_metrics: RecordedMetrics) -> None:
    event = Update.model_validate(message("hello")).message

    async def handler(event: Any, data: dict[str, Any]) -> Any:
        return event, data

    assert event is not None
    assert asyncio.run(ActionTrackingMiddleware()(handler, event, {})) == (event, {})
    assert asyncio.run(track_call(handler, event, {})) == (event, {})
    assert counted(recorded_metrics) == {}


class Quiz(Scene, state="quiz"):
    @on.message.enter()
    async def ask(self, message: Message) -> str:
        return "asked"

    @on.message(F.text == "coffee")
    async def right_answer(self, message: Message) -> str:
        await self.wizard.exit()
        return "right"


def test_a_scene_names_its_actions_after_its_methods(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()
    SceneRegistry(dispatcher).add(Quiz)
    dispatcher.message.register(Quiz.as_handler(), Command("quiz"))
    assert feed(dispatcher, message("/quiz"), message("tea"), message("coffee")) == [None, UNHANDLED, "right"]
    assert counted(recorded_metrics) == {
        ("enter_to_scene_handler", "ok"): 1,
        ("right_answer_handler", "ok"): 1,
        UNHANDLED_UPDATE: 1,
    }


# With and without tracking


class Journal(BaseMiddleware):
    """Writes down what happens, in that order."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.name = name
        self.journal = journal

    async def __call__(self, handler: Any, event: Any, data: dict[str, Any]) -> Any:
        self.journal.append(f"> {self.name} {sorted(data)}")
        try:
            return await handler(event, data)
        except BaseException as problem:
            self.journal.append(f"! {self.name} {problem!r}")
            raise
        finally:
            self.journal.append(f"< {self.name}")


class Order(StatesGroup):
    dish = State()


class SoldOutError(Exception):
    pass


def shop(journal: list[str], *, track: str) -> Dispatcher:
    """Return a bot with about all that aiogram has."""
    dispatcher, router, nested = Dispatcher(workflow="data"), Router(), Router()
    if track == "first":
        ActionTrackingMiddleware().setup(dispatcher)
    for name, observer in [("update", dispatcher.update), ("message", dispatcher.message), ("nested", nested.message)]:
        observer.outer_middleware(Journal(f"outer {name}", journal))
        observer.middleware(Journal(f"inner {name}", journal))
    dispatcher.include_router(router)
    router.include_router(nested)

    @router.message(CommandStart())
    async def start(message: Message, state: FSMContext, **data: Any) -> str:
        journal.append(f"start {sorted(data)}")
        await state.set_state(Order.dish)
        return "which dish?"

    @router.message(Order.dish, F.text == "soup")
    async def soup(message: Message) -> None:
        journal.append("soup")
        raise SoldOutError("soup")

    @router.message(Order.dish)
    async def skipped(message: Message) -> None:
        journal.append("skipped")
        raise SkipHandler("not mine")

    @nested.message(StateFilter(Order.dish), F.text != "nothing")
    async def dish(message: Message, state: FSMContext) -> str:
        journal.append("dish")
        await state.clear()
        return "done"

    @router.message(F.text == "cancel")
    async def cancel(message: Message) -> None:
        raise CancelHandler("enough")

    @router.callback_query(F.data == "unhandled")
    async def unhandled(query: Any) -> Any:
        return UNHANDLED

    @nested.callback_query()
    async def failing(query: Any) -> None:
        raise ValueError("nobody takes this")

    @router.error()
    async def log_error(event: ErrorEvent) -> Any:
        journal.append(f"error {event.exception!r}")
        return "sorry" if isinstance(event.exception, SoldOutError) else UNHANDLED

    if track == "last":
        ActionTrackingMiddleware().setup(dispatcher)
    return dispatcher


SHOPPING: list[Callable[[], dict[str, Any]]] = [
    partial(message, "/start"),
    partial(message, "soup"),
    partial(message, "nothing"),
    partial(message, "tea"),
    partial(message, "tea"),
    partial(message, "cancel"),
    partial(message, "cancel", "edited_message"),
    partial(pressed, "unhandled"),
    partial(pressed, "other"),
    partial(inline, "soup"),
]


@pytest.mark.parametrize("track", ["first", "last"])
def test_with_and_without_tracking_the_same_happens_in_the_same_order(
    track: str, recorded_metrics: RecordedMetrics
) -> None:
    plain: list[str] = []
    expected = feed(shop(plain, track=""), *(make() for make in SHOPPING))
    assert counted(recorded_metrics) == {}
    journal: list[str] = []
    results = feed(shop(journal, track=track), *(make() for make in SHOPPING))
    assert [repr(result) for result in results] == [repr(result) for result in expected]
    assert journal == plain
    assert counted(recorded_metrics) == {
        ("start_handler", "ok"): 1,
        ("soup_handler", "error"): 1,
        ("skipped_handler", "ok"): 2,
        ("dish_handler", "ok"): 1,
        ("cancel_handler", "ok"): 1,
        ("unhandled_handler", "ok"): 1,
        ("failing_handler", "error"): 2,
        UNHANDLED_UPDATE: 3,
    }


@pytest.mark.parametrize("kind", [ValueError, SkipHandler, CancelHandler])
def test_what_a_handler_raises_is_what_the_application_sees(
    kind: type[Exception], recorded_metrics: RecordedMetrics
) -> None:
    raised = kind("this very object")
    seen: list[BaseException] = []

    class See(BaseMiddleware):
        async def __call__(self, handler: Any, event: Any, data: dict[str, Any]) -> Any:
            try:
                return await handler(event, data)
            except Exception as problem:
                seen.append(problem)
                raise

    dispatcher = tracked()
    dispatcher.update.outer_middleware(See())
    dispatcher.message.middleware(See())

    @dispatcher.message()
    async def menu(message: Message) -> None:
        raise raised

    feed(dispatcher, message("hello"))
    assert seen == [raised] * len(seen)
    assert all(one is raised for one in seen)
    assert len(seen) == (1 if kind is SkipHandler else 2)
    assert raised.__context__ is None
    recorded_metrics.assert_action("menu_handler", status="error" if kind is ValueError else "ok")


@pytest.mark.parametrize("explicitly", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_error_handlers_count_where_they_are_asked_to(
    whole: bool, explicitly: bool, recorded_metrics: RecordedMetrics
) -> None:
    dispatcher, router = Dispatcher(), Router()
    dispatcher.include_router(router)
    ActionTrackingMiddleware().setup(dispatcher if whole else router)
    if explicitly:
        dispatcher.errors.outer_middleware(ActionTrackingMiddleware())

    @router.message()
    async def menu(message: Message) -> None:
        raise ValueError("soup") if message.text == "soup" else KeyError("tea")

    @router.errors(F.exception.as_("exception") & F.exception.func(lambda problem: isinstance(problem, ValueError)))
    async def sorry(event: ErrorEvent) -> str:
        return f"sorry, {event.exception}"

    results = feed(dispatcher, message("soup"), message("tea"))
    assert results[0] == "sorry, soup"
    assert isinstance(results[1], KeyError)
    expected = {("menu_handler", "error"): 2} | ({("sorry_handler", "ok"): 1} if explicitly else {})
    assert counted(recorded_metrics) == expected


def test_concurrent_updates_count_each_for_itself(recorded_metrics: RecordedMetrics) -> None:
    dispatcher = tracked()

    async def scenario() -> list[Any]:
        waiting, everybody = 0, asyncio.Event()

        @dispatcher.message(F.text == "wait")
        async def wait(message: Message) -> int:
            nonlocal waiting
            waiting += 1
            if waiting == 20:
                everybody.set()
            await everybody.wait()
            current_action().size(waiting)
            return waiting

        bot = Bot(TOKEN)
        updates = [Update.model_validate(message("wait" if number % 2 else "other")) for number in range(40)]
        return await asyncio.gather(*(dispatcher.feed_update(bot, one) for one in updates))

    assert asyncio.run(scenario()) == [UNHANDLED, 20] * 20
    assert counted(recorded_metrics) == {("wait_handler", "ok"): 20, UNHANDLED_UPDATE: 20}
    recorded_metrics.assert_metric("genapp_action_size_total", 400, name="wait_handler")


# By polling and by webhook


def bot_for(api: TelegramApi, session: type[AiohttpSession] = TrackedSession) -> Bot:
    return Bot(TOKEN, session=session(api=TelegramAPIServer.from_base(api.url)))


def talking(*, track: bool, stuck: asyncio.Event) -> Dispatcher:
    dispatcher, router = Dispatcher(), Router()
    dispatcher.include_router(router)
    if track:
        ActionTrackingMiddleware().setup(dispatcher)

    @router.message(Command("menu"))
    async def menu(message: Message) -> None:
        await message.answer("Menu")

    @router.edited_message()
    async def correction(message: Message) -> None:
        await message.answer("Corrected")

    @router.callback_query(F.data == "order")
    async def order(query: Any) -> None:
        await query.answer("Ordered")
        await query.message.answer("Ordered")

    @router.inline_query()
    async def search(query: Any) -> None:
        await query.answer([])

    @router.message(F.text == "break")
    async def broken(message: Message) -> None:
        raise ValueError("broken")

    @router.message(F.text == "wait")
    async def wait(message: Message) -> None:
        stuck.set()
        await asyncio.Event().wait()

    @router.message(F.text == "reply")
    async def reply(message: Message) -> SendMessage:
        return SendMessage(chat_id=message.chat.id, text="Replied")

    @router.errors()
    async def apologise(event: ErrorEvent) -> None:
        update = event.update.message
        assert update is not None
        await update.answer(f"Sorry: {event.exception}")

    return dispatcher


TALK: list[Callable[[], dict[str, Any]]] = [
    partial(message, "/menu"),
    partial(message, "/menu", "edited_message"),
    partial(pressed, "order"),
    partial(pressed, "other"),
    partial(inline, "coffee"),
    partial(message, "break"),
    partial(message, "nothing"),
    partial(message, "reply"),
]
TALKED = {
    ("menu_handler", "ok"): 1,
    ("correction_handler", "ok"): 1,
    ("order_handler", "ok"): 1,
    ("search_handler", "ok"): 1,
    ("broken_handler", "error"): 1,
    ("reply_handler", "ok"): 1,
    UNHANDLED_UPDATE: 2,
}
CALLS = {"sendMessage": 5, "answerCallbackQuery": 1, "answerInlineQuery": 1}


async def poll_bot(*, track: bool) -> TelegramApi:
    """Talk to a bot that polls, and leave it while a handler waits."""
    async with telegram_api() as api:
        bot, stuck = bot_for(api, TrackedSession if track else AiohttpSession), asyncio.Event()
        dispatcher = talking(track=track, stuck=stuck)
        polling = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False))
        for number, make in enumerate(TALK, 1):
            await api.push(make())
            await api.called("getUpdates", 1 + number)
            if number in (1, 2, 6, 8):
                await api.called("sendMessage", {1: 1, 2: 2, 6: 4, 8: 5}[number])
        await api.push(message("wait"))
        await stuck.wait()
        await api.called("getUpdates", 2 + len(TALK))
        await dispatcher.stop_polling()
        await polling
        return api  # asyncio.run() cancels the handler that waits


def test_by_polling(recorded_metrics: RecordedMetrics) -> None:
    plain = asyncio.run(poll_bot(track=False))
    assert counted(recorded_metrics) == {}
    assert recorded_metrics.exchanges == []
    api = asyncio.run(poll_bot(track=True))
    assert api.texts == plain.texts == ["Menu", "Corrected", "Ordered", "Sorry: broken", "Replied"]
    assert api.methods == plain.methods == {**CALLS, "getMe": 1, "getUpdates": 10}
    assert counted(recorded_metrics) == {**TALKED, ("wait_handler", "cancelled"): 1}
    for resource, times in {**CALLS, "getMe": 1, "getUpdates": 9}.items():
        recorded_metrics.assert_http(resource=resource, method="POST", status=200, app_type="telegram_api", times=times)
    recorded_metrics.assert_http(resource="getUpdates", status="cancelled")
    recorded_metrics.assert_http(times=18)


async def hook_bot(*, track: bool, in_background: bool) -> tuple[TelegramApi, list[int]]:
    """Talk to a bot that has a webhook."""
    async with telegram_api() as api:
        bot, stuck = bot_for(api, TrackedSession if track else AiohttpSession), asyncio.Event()
        dispatcher = talking(track=track, stuck=stuck)
        app = web.Application()
        SimpleRequestHandler(dispatcher, bot, handle_in_background=in_background).register(app, path="/hook")
        setup_application(app, dispatcher, bot=bot)
        async with serving(app) as address:
            await bot.set_webhook(f"{address}/hook")
            statuses: list[int] = []
            for make in TALK:
                said = api.times("sendMessage") + api.times("answerInlineQuery")
                one = make()
                statuses += await api.push(one)
                if in_background and not any(part in str(one) for part in ("other", "nothing")):
                    while api.times("sendMessage") + api.times("answerInlineQuery") == said:
                        async with api.arrived:
                            await api.arrived.wait()
            await bot.delete_webhook()
        return api, statuses


@pytest.mark.parametrize("in_background", [False, True])
def test_by_webhook(in_background: bool, recorded_metrics: RecordedMetrics) -> None:
    plain, expected = asyncio.run(hook_bot(track=False, in_background=in_background))
    assert counted(recorded_metrics) == {}
    api, statuses = asyncio.run(hook_bot(track=True, in_background=in_background))
    assert statuses == expected == [200] * len(TALK)
    assert api.texts == plain.texts
    replied = CALLS if in_background else CALLS | {"sendMessage": 4}  # else the reply is the webhook's response
    assert api.methods == plain.methods == {**replied, "setWebhook": 1, "deleteWebhook": 1}
    assert counted(recorded_metrics) == TALKED
    for resource, times in api.methods.items():
        recorded_metrics.assert_http(resource=resource, status=200, app_type="telegram_api", times=times)


def test_a_webhook_whose_handler_fails_answers_as_without_tracking(recorded_metrics: RecordedMetrics) -> None:
    async def scenario(*, track: bool) -> list[int]:
        dispatcher = Dispatcher()
        if track:
            ActionTrackingMiddleware().setup(dispatcher)

        @dispatcher.message()
        async def broken(message: Message) -> None:
            raise ValueError("broken")

        async with telegram_api() as api:
            app = web.Application()
            SimpleRequestHandler(dispatcher, bot_for(api), handle_in_background=False).register(app, path="/hook")
            async with serving(app) as address:
                api.webhook = f"{address}/hook"
                return await api.push(message("hello"))

    assert asyncio.run(scenario(track=False)) == asyncio.run(scenario(track=True)) == [500]
    assert counted(recorded_metrics) == {("broken_handler", "error"): 1}


# HTTP metrics


def with_bot(scenario: Callable[[Bot, TelegramApi], Awaitable[Any]], session: type[AiohttpSession]) -> Any:
    async def run() -> Any:
        async with telegram_api() as api, bot_for(api, session) as bot:
            return await scenario(bot, api)

    return asyncio.run(run())


async def exchange_files(bot: Bot, api: TelegramApi) -> Any:
    await bot.send_document(42, BufferedInputFile(b"x" * 5000, "bill.txt"))
    file = await bot.get_file("f1")
    assert file.file_path is not None
    downloaded = await bot.download_file(file.file_path)
    assert downloaded is not None
    return downloaded.read(), file.file_path, api.files


def test_uploads_and_downloads_count_with_their_bytes(recorded_metrics: RecordedMetrics) -> None:
    expected = with_bot(exchange_files, AiohttpSession)
    assert recorded_metrics.exchanges == []
    assert with_bot(exchange_files, TrackedSession) == expected == (CONTENT, "documents/bill.txt", {"bill.txt": 5000})
    upload, asked, download = recorded_metrics.exchanges
    assert upload.resource == "sendDocument"
    assert upload.request_bytes > 5000
    assert upload.response_bytes > 100
    assert asked.resource == "getFile"
    assert download == HttpExchange("GET", "200", "file/{path}", "telegram_api", 0, len(CONTENT))


async def fail(bot: Bot, api: TelegramApi) -> Any:
    api.faults["sendMessage"] = (400, "Bad Request: chat not found")
    api.silent.add("getChat")
    failures: list[Any] = []
    for call in (
        lambda: bot.send_message(42, "hello"),
        lambda: bot.get_chat(42, request_timeout=1),
        lambda: bot.me(),
    ):
        try:
            failures.append(await call())
        except (TelegramBadRequest, TelegramNetworkError) as problem:
            failures.append(problem)
    bot.session.api = TelegramAPIServer.from_base("http://127.0.0.1:1")
    with pytest.raises(TelegramNetworkError):
        await bot.log_out()
    return [str(failure) for failure in failures]


def test_failures_count_by_status_and_are_raised_as_without_tracking(recorded_metrics: RecordedMetrics) -> None:
    expected = with_bot(fail, AiohttpSession)
    assert with_bot(fail, TrackedSession) == expected
    assert [(one.resource, one.status) for one in recorded_metrics.exchanges] == [
        ("sendMessage", "400"),
        ("getChat", "timeout"),
        ("getMe", "200"),
        ("logOut", "error"),
    ]


def test_a_session_that_is_closed_and_opened_again_counts_on(recorded_metrics: RecordedMetrics) -> None:
    async def scenario(bot: Bot, api: TelegramApi) -> None:
        await bot.get_me()
        await bot.session.close()
        await bot.get_me()
        await bot.get_me()

    with_bot(scenario, TrackedSession)
    recorded_metrics.assert_http(resource="getMe", times=3)


def test_a_session_takes_what_aiohttp_sessions_take() -> None:
    session = TrackedSession(limit=3, timeout=7)
    assert (session.timeout, isinstance(session, AiohttpSession)) == (7, True)


def test_no_label_of_any_metric_has_the_token(scrape: Scrape) -> None:
    asyncio.run(poll_bot(track=True))
    with_bot(exchange_files, TrackedSession)
    text = str(scrape())
    assert "sendMessage" in text
    assert "menu_handler" in text
    for secret in (TOKEN, SECRET, TOKEN.split(":")[0]):
        assert secret not in text
