"""A load on a real server of several processes: what was sent, what was answered, and who answered last."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Condition, Event, Thread
from typing import IO, cast

from scraping import Series, parsed
from servers import running

PATIENCE = 120


def get(port: int, path: str) -> bytes | None:
    """Return the whole body of an answer, or ``None`` where the server was killed before it had sent all of it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    assert answer.status == 200, body
    return body


class Load:
    """Clients that order without a pause, each order on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent = 0
        self.answered = 0
        self.answered_by: dict[int, int] = {}
        """The number of the process that gave an answer, and which answer of all was its latest."""
        self.latest = 0
        self.changed = Condition()

    def order_until(self, stop: Event) -> None:
        while not stop.is_set():
            with self.changed:
                self.sent += 1
            if body := get(self.port, "/order"):
                with self.changed:
                    self.answered += 1
                    self.latest = int(body)
                    self.answered_by[self.latest] = self.answered
                    self.changed.notify_all()

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Return as soon as an answer has made it true."""
        with self.changed:
            assert self.changed.wait_for(true, PATIENCE), f"{self.answered} answers to {self.sent} requests"

    def wait_for_answers(self, more: int) -> None:
        enough = self.answered + more
        self.wait_until(lambda: self.answered >= enough)


def scrape_until(stop: Event, port: int, gone_down: list[str]) -> None:
    """Scrape all the time, and write down what is less than it was."""
    before: dict[Series, float] = {}
    while not stop.is_set():
        body = get(port, "/metrics")
        if body is None:
            continue
        values = parsed(body.decode())
        gone_down += [
            f"{key}: {values.get(key)} after {old}" for key, old in before.items() if values.get(key, 0) < old
        ]
        before = values


@contextmanager
def loaded(port: int, clients: int = 3) -> Iterator[Load]:
    """Order and scrape during the block. At its end every order has been answered or has failed."""
    load, stop = Load(port), Event()
    faults: list[str] = []
    scrapers = [Thread(target=scrape_until, args=(stop, port, faults)) for _ in range(2)]
    threads = [Thread(target=load.order_until, args=(stop,)) for _ in range(clients)] + scrapers
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []


@contextmanager
def gunicorn(folder: Path, application: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Serve the application with processes that count in ``folder/metrics``; yield the server and its port."""
    (folder / "shop.py").write_text(application)
    (folder / "metrics").mkdir()
    command = [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "--no-control-socket", *options, "shop:app"]
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
    with running(command, cwd=folder, env=environ, stderr=subprocess.PIPE) as server:
        log: list[str] = []
        for line in cast("IO[str]", server.stderr):
            log.append(line)
            if found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise AssertionError("".join(log))
        reader = Thread(target=log.extend, args=(cast("IO[str]", server.stderr),))  # so that the pipe never fills
        reader.start()
        try:
            yield server, int(found[1])
        finally:
            server.terminate()
            reader.join()
            print("".join(log))
