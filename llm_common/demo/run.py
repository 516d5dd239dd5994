"""The demo from start to end: what is set up, in which order, and that all of it is gone afterwards."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from llm_common import shutdown
from llm_common.demo.bot import SupportBot
from llm_common.demo.chance import seeded
from llm_common.demo.knowledge import Knowledge
from llm_common.demo.llm_client import LlmClient
from llm_common.demo.llm_server import ADDRESS, LlmServer
from llm_common.demo.load import day, web_client
from llm_common.demo.orders import OrderBook
from llm_common.demo.recorder import DemoRecorder
from llm_common.demo.screen import Screen
from llm_common.demo.summary import print_summary
from llm_common.demo.web import web_app
from llm_common.demo.web_server import WebServer
from llm_common.dispatch import read_settings
from llm_common.errors import LLMCommonError
from llm_common.prometheus import configure, start_metrics_server
from llm_common.settings import Settings

APP = "demo_bot"
"""The label ``app`` where the settings name none."""
CUSTOMERS = 10
"""How many customers the bot has, and again the shop, at once."""
REINDEX_EVERY = 2.0
"""How many seconds lie between two calls of the scheduled task."""
REDRAW_EVERY = 0.2
"""How many seconds lie between two pictures of the live screen."""


class DemoError(Exception):
    """The demo can't begin. The message says why; ``status`` is the exit status for the command line."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the demo."""

    seconds: float = 30.0
    """How long, above 0."""
    port: int = 0
    """Where to serve the metrics; 0 takes any free port."""
    backends: str | None = None
    """Names of backends, separated by commas; ``None`` leaves them to the settings."""
    seed: int = 1
    """What all chance follows from."""
    outage: float = 0.0
    """How many seconds, at first, the language model is down."""


def run_demo(options: Options, console: Console) -> None:
    """Run the demo and print what it shows to ``console``: a live screen on a terminal, a summary in any case.

    Ends by itself after ``options.seconds``, or at once on SIGINT or SIGTERM; both are ordinary ends.
    Raises :class:`DemoError` for a port that can't be had (status 1) and for settings, such as the names of backends,
    that can't be used (status 2).
    """
    asyncio.run(_run(options, console))


async def _run(options: Options, console: Console) -> None:
    stop = asyncio.Event()
    with stopped_by_signals(stop):
        recorder = DemoRecorder()
        settings = configure_metrics(options.backends, recorder)
        chances = partial(seeded, options.seed)
        async with AsyncExitStack() as cleanup:
            cleanup.callback(shutdown)
            knowledge, orders = Knowledge(), OrderBook(chances("orders"))
            try:
                metrics = cleanup.enter_context(start_metrics_server(options.port))
                llm_server = cleanup.enter_context(LlmServer(chances("LLM"), outage=options.outage))
                llm = await cleanup.enter_async_context(LlmClient(ADDRESS, llm_server.port))
                bot = SupportBot(knowledge, orders, llm)
                web = await cleanup.enter_async_context(WebServer(web_app(knowledge, orders, bot)))
            except OSError as problem:
                raise DemoError(problem.strerror or str(problem), 1) from problem
            shop = await cleanup.enter_async_context(web_client(web.url))
            recorder.begin()
            announce(console, metrics.url, web.url, settings)
            with Screen(console, recorder, options.seconds) as screen:
                await bot.reindex_task()  # before the first customer asks
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one) for one in day(bot, shop, chances, CUSTOMERS, REINDEX_EVERY)]
                    await watch(screen, stop, recorder, options.seconds)
                    for task in tasks:
                        task.cancel()
            elapsed = recorder.elapsed
        print_summary(console, recorder.actions(), recorder.exchanges(), elapsed)


async def watch(screen: Screen, stop: asyncio.Event, recorder: DemoRecorder, seconds: float) -> None:
    """Redraw ``screen`` until ``seconds`` have passed on the recorder's clock or ``stop`` is set."""
    while not stop.is_set() and (left := seconds - recorder.elapsed) > 0:
        screen.draw()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left, REDRAW_EVERY)):
                await stop.wait()


def configure_metrics(backends: str | None, recorder: DemoRecorder) -> Settings:
    """Configure the backends named, or those of the settings, with ``recorder`` besides; return what was asked for.

    Raises :class:`DemoError` where the settings can't be used, in the words of the library's own error.
    """
    source = "the option --backend"
    try:
        settings = read_settings({"backends": backends})
        if backends is None:
            source = settings.source("backends")
        app = APP if settings.source("app") == "the main module's name" else settings.app
        return configure(app=app, backends=[*settings.backends, recorder])
    except LLMCommonError as problem:
        raise DemoError(str(problem).replace("the argument backends= of configure()", source), 2) from problem


def announce(console: Console, metrics: str, web: str, settings: Settings) -> None:
    """Print where to scrape and where the shop is, at once, so that whoever reads the other end of a pipe can begin."""
    names = ", ".join(one for one in settings.backends if isinstance(one, str))
    console.print(f"Metrics: {metrics}", soft_wrap=True, highlight=False)
    console.print(f"Shop: {web}/docs", soft_wrap=True, highlight=False)
    console.print(f"app {settings.app}, env {settings.env}, backends: {names}", soft_wrap=True, highlight=False)
    console.file.flush()


@contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop`` and do nothing else; they mean again what they meant before afterwards.

    Without effect outside of the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
