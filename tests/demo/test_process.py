"""The demo as users start it: in a process of its own, with a pipe or a terminal at the other end."""

import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.e2e

DEADLINE = 60.0
ACTIONS = {
    "answer_llm_call",
    "answer_stream",
    "menu_handler",
    "order_callback_handler",
    "question_handler",
    "reindex_task",
    "support_agent",
}


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "FORCE_COLOR"}}
    return {**kept, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llm_common", "demo", *arguments]


@contextmanager
def demo(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a demo that runs, and the address that it printed first."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            address = re.fullmatch(r"Metrics: (http://127\.0\.0\.1:\d+/metrics)\n", process.stdout.readline())
            assert address is not None
            yield process, address[1]
        finally:
            process.kill()  # without effect on one that has ended


STATUSES = {"ok", "error", "cancelled"}
METRICS = {
    "genapp_action_count",
    "genapp_action_duration_sec",
    "genapp_action_size",
    "genapp_http_requests",
    "genapp_http_request_duration_sec",
    "genapp_http_request_size_bytes",
}


def scrape(url: str) -> tuple[set[str], dict[str, set[str]]]:
    """Scrape ``url`` and return the metrics that have values, and which statuses each action ended with.

    Checks the labels of the actions on the way.
    """
    with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
        found: dict[str, set[str]] = defaultdict(set)
        for sample in (one for family in families for one in family.samples):
            if sample.name == "genapp_action_count_total":
                assert set(sample.labels) == {"name", "status", "env", "app"}
                assert (sample.labels["env"], sample.labels["app"]) == ("dev", "demo_bot")
                if sample.value:
                    found[sample.labels["name"]].add(sample.labels["status"])
        return {family.name for family in families if family.samples}, found


def test_the_metrics_can_be_scraped_while_it_runs_and_ctrl_c_ends_it_with_a_summary() -> None:
    with demo("--seconds", str(DEADLINE), "--port", "0") as (process, url):
        until = monotonic() + DEADLINE
        metrics, found = scrape(url)
        while not metrics >= METRICS or set(found) != ACTIONS or set().union(*found.values()) != STATUSES:
            assert monotonic() < until, (metrics, found)
            sleep(0.05)  # nothing in this process could be awaited
            metrics, found = scrape(url)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert "actions in" in out
    assert all(action in out for action in ACTIONS)
    assert "HTTP requests" in out


def test_a_supervisor_ends_it_as_well() -> None:
    with demo("--backend", "noop", "--seconds", str(DEADLINE)) as (process, _):
        process.terminate()
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert "actions in" in out


def test_it_ends_by_itself() -> None:
    with demo("--seconds", "1") as (process, _):
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_port_in_use_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = subprocess.run(
            command("--port", port), capture_output=True, text=True, env=environment(), timeout=DEADLINE, check=False
        )
    assert (answer.returncode, answer.stdout) == (1, "")
    assert re.fullmatch(rf"llm-common demo: .*port {port}.*\n", answer.stderr)


def test_a_terminal_shows_the_live_table_and_then_the_summary() -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(command("--seconds", "1.5"), stdin=slave, stdout=slave, stderr=slave, env=environment()) as p:
        os.close(slave)
        shown = b""
        while chunk := read(master):
            shown += chunk
    os.close(master)
    text = shown.decode()
    assert p.returncode == 0
    assert "Traceback" not in text
    live, _, summary = text.partition("actions in")
    assert "of 1.5 s" in live
    assert live.count("by second") >= 2
    assert "question_handler" in live
    assert "v1/chat/completions" in live
    assert "question_handler" in summary
    assert "by second" not in summary
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back


def read(terminal: int) -> bytes:
    """Return what a terminal shows next; nothing where the other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says it
        return b""
