"""An hour in the life of a bot's service, without the waiting: run as a process of its own, which measures itself."""

import asyncio
import gc
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from random import Random
from typing import Any
from urllib.request import urlopen

from llm_common import action_tracking_decorator, current_action, shutdown
from llm_common.backends.memory import MemoryBackend
from llm_common.integrations.wsgi import MetricsMiddleware
from llm_common.prometheus import action_tracking, configure, http_tracking, start_metrics_server

PAGE = os.sysconf("SC_PAGE_SIZE")
HANDLERS = [f"{word}_handler" for word in ("menu", "order", "cart", "pay", "help", "search", "profile", "review")]


class NoAnswerError(Exception):
    """What fails in a bot."""


def serve(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/broken":
        raise NoAnswerError
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ordered"]


class Service:
    """What happens in one second after the other."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.chance = Random(7)
        self.web = MetricsMiddleware(serve)
        self.memory = MemoryBackend(limit=500)
        self.expected = 0
        """How many actions were to be counted in this process and its children."""
        self.several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.configure()

    def configure(self) -> None:
        configure(app="shop", extra_metrics="all", backends=["prometheus", self.memory])

    def handle(self, number: int) -> None:
        with suppress(NoAnswerError, GeneratorExit), action_tracking(HANDLERS[number % len(HANDLERS)]) as tracker:
            tracker.size(number)
            if number % 31 == 0:
                raise NoAnswerError
            if number % 37 == 0:
                raise GeneratorExit
            if number % 41 == 0:
                current_action().to_fail("refused")

    def handle_some(self, times: int) -> None:
        for number in range(times):
            self.handle(number)

    def exchange(self) -> None:
        for number in range(8):
            path = "/broken" if number == 5 else f"/orders/{self.chance.randrange(10**6)}"
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_PROTOCOL": "HTTP/1.1"}
            with suppress(NoAnswerError):
                body = self.web(environ, lambda status, headers, *_: lambda data: None)
                list(body)
                body.close()  # type: ignore[attr-defined]
        path = f"/bot123456:secret/sendMessage?chat={self.chance.random()}"
        http_tracking("telegram_api", path, "POST", 100, 200, 0.1, 50)
        http_tracking("llm", f"/v1/threads/{self.chance.randrange(10**9)}", "POST", 9, "timeout", 30.0, 5000)

    async def answer(self) -> None:
        @action_tracking_decorator("answer_llm_call")
        async def stream() -> AsyncIterator[int]:
            for number in range(4):
                await asyncio.sleep(0)
                yield number
            current_action().tokens("small-model", input=100, output=4)

        async for _ in stream():
            pass

    async def talk(self) -> None:
        """Let five answers be streamed at once, one of which nobody waits for."""
        tasks = [asyncio.create_task(self.answer()) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def in_threads(self) -> None:
        threads = [threading.Thread(target=self.handle_some, args=(10,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def fork(self) -> None:
        child = os.fork()
        if not child:  # pragma: no cover - it is not measured
            self.handle_some(10)
            os._exit(0)
        os.waitpid(child, 0)

    def live(self, measure_at: int) -> tuple[dict[str, int], dict[str, int]]:
        """Return what was measured after ``measure_at`` seconds, and at the end."""
        measured = {}
        with start_metrics_server() as server:
            for second in range(1, self.seconds + 1):
                self.handle_some(60)
                self.in_threads()
                self.exchange()
                self.expected += 100
                if second % 2 == 0:
                    asyncio.run(self.talk())
                    self.expected += 5
                if second % 15 == 0:
                    with urlopen(server.url, timeout=30) as scrape:
                        scrape.read()
                if second % 20 == 0:
                    self.fork()
                    self.expected += 10 * self.several
                if second % 60 == 0:
                    if second % 300 == 0:
                        shutdown()
                    self.configure()
                if second in (measure_at, self.seconds):
                    with urlopen(server.url, timeout=30) as scrape:
                        text = scrape.read().decode()
                    measured[second] = self.measure()
        counted = sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("genapp_action_count_total{")
        )
        assert counted == self.expected, (counted, self.expected)
        return measured[measure_at], measured[self.seconds]

    def measure(self) -> dict[str, int]:
        for _ in range(3):
            gc.collect()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * PAGE
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        return {
            "resident KiB": resident // 1024,
            "traced KiB": tracemalloc.get_traced_memory()[0] // 1024,
            "objects": len(gc.get_objects()),
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "files": len(os.listdir(directory)) if directory else 0,
            "actions": self.expected,
        }


if __name__ == "__main__":  # pragma: no cover - another process
    tracemalloc.start()
    service = Service(int(sys.argv[1]))
    print(json.dumps(service.live(int(sys.argv[2]))))
