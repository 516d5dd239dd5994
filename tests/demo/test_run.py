import asyncio
import io
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from llm_common.demo.recorder import DemoRecorder
from llm_common.demo.run import DemoError, Options, configure_metrics, run_demo, stopped_by_signals
from llm_common.demo.screen import Screen

ACTIONS = [
    "answer_llm_call",
    "answer_stream",
    "menu_handler",
    "order_callback_handler",
    "question_handler",
    "reindex_task",
    "support_agent",
]
RESOURCES = {
    *("articles", "articles/{number}", "orders/{number}", "{unknown}", "answers/stream", "questions"),
    "v1/chat/completions",
}


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, _environ={"TERM": "xterm"})


def text(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def seen_everything(recorder: DemoRecorder) -> bool:
    actions = [one.name for one in recorder.actions()]
    resources = {one.series.resource for one in recorder.exchanges()}
    return actions == ACTIONS and resources >= RESOURCES


def test_without_a_terminal_there_are_the_addresses_and_then_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(screen: Screen, stop: asyncio.Event, recorder: DemoRecorder, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not seen_everything(recorder):  # noqa: ASYNC110 - no event tells when the first customers are through
                await asyncio.sleep(0.01)

    monkeypatch.setattr("llm_common.demo.run.watch", watch)
    screen = console()
    run_demo(Options(seconds=60, backends="noop"), screen)
    lines = text(screen).splitlines()
    assert re.fullmatch(r"Metrics: http://127\.0\.0\.1:\d+/metrics", lines[0])
    assert re.fullmatch(r"Shop: http://127\.0\.0\.1:\d+/docs", lines[1])
    assert lines[2] == "app demo_bot, env dev, backends: noop"
    assert re.fullmatch(r"\d+ actions in \d\.\d s: \d+ ok, \d+ error, \d+ cancelled", lines[4])
    assert [line.split()[0] for line in lines[8:15]] == ACTIONS
    assert re.fullmatch(r"\d+ HTTP requests: \d+ served, \d+ sent", lines[16])
    assert {line.split()[2] for line in lines[20:]} >= RESOURCES
    assert lines[20].startswith("app_api")
    assert lines[-1].startswith("llm")


def test_on_a_terminal_the_figures_are_drawn_while_it_runs() -> None:
    screen = console(terminal=True)
    run_demo(Options(seconds=1, backends="memory"), screen)
    shown = text(screen)
    assert shown.count("by second") >= 2
    assert shown.rindex("by second") < shown.index("actions in")


def test_nothing_is_left_behind_and_another_thread_than_the_main_one_will_do() -> None:
    before = set(threading.enumerate())
    screen = console()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run_demo, Options(seconds=0.5, backends="noop"), screen).result()
    assert "actions in" in text(screen)
    assert set(threading.enumerate()) == before


def test_a_port_in_use_is_named_and_has_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {port}") as refused:
            run_demo(Options(seconds=1, port=port, backends="noop"), console())
    assert refused.value.status == 1
    assert "\n" not in str(refused.value)


def test_an_unknown_backend_is_named_with_the_option() -> None:
    with pytest.raises(DemoError, match="unknown backend 'promethius', named by the option --backend") as refused:
        run_demo(Options(seconds=1, backends="promethius"), console())
    assert refused.value.status == 2


def test_an_unknown_backend_is_named_with_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_COMMON_BACKENDS", "promethius")
    with pytest.raises(DemoError, match="'promethius', named by the environment variable LLM_COMMON_BACKENDS"):
        run_demo(Options(seconds=1), console())


def test_no_backend_at_all_is_refused() -> None:
    with pytest.raises(DemoError, match="the option --backend is ','") as refused:
        run_demo(Options(seconds=1, backends=","), console())
    assert refused.value.status == 2


def test_the_settings_decide_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BACKENDS": "memory", "APP": "shop_bot", "ENV": "preprod"}.items():
        monkeypatch.setenv(f"LLM_COMMON_{name}", value)
    recorder = DemoRecorder()
    settings = configure_metrics(None, recorder)
    assert (settings.app, settings.env, settings.backends) == ("shop_bot", "preprod", ("memory", recorder))


def test_an_app_without_a_name_is_the_demo_bot() -> None:
    assert configure_metrics("noop", DemoRecorder()).app == "demo_bot"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_demo_and_means_afterwards_what_it_meant_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    async def run() -> None:
        stop = asyncio.Event()
        with stopped_by_signals(stop):
            signal.raise_signal(number)
            await asyncio.wait_for(stop.wait(), 10)

    asyncio.run(run())
    assert signal.getsignal(number) == before
