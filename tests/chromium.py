"""A real browser for tests: Chromium from Debian's package, driven by its DevTools protocol, in one tab."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from servers import program, running

SECONDS = 30
"""How long the browser may take for one thing."""

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --remote-debugging-port=0"
)


class Tab:
    """A tab, what it asked for, and what went wrong in it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self.number += 1
        self.connection.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (message := self._next()).get("id") != self.number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> Any:
        message = json.loads(self.connection.recv(timeout=SECONDS))
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, address: str) -> None:
        """Open an address and wait until the page is loaded; forget what was seen before."""
        self.events.clear()
        failed = self.call("Page.navigate", url=address).get("errorText")
        assert not failed, f"{address}: {failed}"
        self.wait_for_load()

    def wait_for_load(self) -> None:
        """Wait until a page is loaded."""
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def resize(self, width: int) -> None:
        """Give the tab a width, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_until(self, expression: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def problems(self) -> list[str]:
        """Return the errors since the page was opened."""
        found = []
        for event in self.events:
            parameters = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning", "assert"}:
                found.append(str(parameters["args"]))
            elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
                found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        return found

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        seen = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in seen if not one["request"]["url"].startswith(("data:", "blob:"))]


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """Start Chromium with a new profile, and end it at the end of the block."""
    command = [program("chromium"), *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        port = wait_for_port(browser, profile / "DevToolsActivePort")
        pages = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False, timeout=SECONDS).json()
        (address,) = (page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, compression=None, proxy=None) as connection:
            yield Tab(connection)


def wait_for_port(browser: subprocess.Popen[str], written: Path) -> str:
    """Return the port of the DevTools protocol, which the browser writes into a file."""
    end = time.monotonic() + SECONDS
    while not written.is_file() or written.read_text().count("\n") < 1:
        assert browser.poll() is None, "Chromium ended"
        assert time.monotonic() < end, "Chromium didn't start"
        time.sleep(0.02)
    return written.read_text().splitlines()[0]
