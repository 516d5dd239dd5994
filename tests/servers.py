"""Real servers for tests: Prometheus and its companions from Debian's packages, and the demo that they look at."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pytest

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "victoria-metrics": "victoria-metrics",
    "npm": "npm",
    "chromium": "chromium",
}
"""Programs that tests run, and the Debian packages that have them."""


def program(name: str) -> str:
    """Return where a program is; skip the test where it is missing, or fail it in the continuous integration."""
    found = shutil.which(name)
    if found is None:
        missing = f"the program `{name}` is missing (Debian package {PACKAGES[name]})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def unmeasured() -> dict[str, str]:
    """Return this environment for a process whose coverage isn't measured, which would disturb it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def eventually(question: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 60) -> Any:
    """Ask until there is an answer; each answer comes from another process, so there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            if answer := question():
                return answer
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"no answer within {seconds} seconds")


@contextmanager
def demo(*options: str, **more: str) -> Iterator[str]:
    """Run the demo, with ``more`` in its environment; yield where it can be scraped."""
    # -P: what is tested is the installed wheel, and not the repository, wherever this is called.
    command = [sys.executable, "-P", "-m", "llm_common", "demo", "--seconds", "120", *options]
    settings = {"APP": "demo_bot", "ENV": "preprod", "EXTRA_METRICS": "all"}
    environ = {**os.environ, **{f"LLM_COMMON_{key}": value for key, value in settings.items()}, "PYTHONUNBUFFERED": "1"}
    environ |= more
    with running(command, stdout=subprocess.PIPE, env=environ) as process:
        for line in cast("IO[str]", process.stdout):
            if found := re.search(r"http://(127\.0\.0\.1:\d+)/metrics", line):
                yield found.group(1)
                return
        raise AssertionError("the demo printed no address")


@dataclass(frozen=True)
class Api:
    """The API of Prometheus, or of what answers like one."""

    url: str

    def __call__(self, question: str, **parameters: Any) -> Any:
        """Return the data of the answer to a question such as ``query``; ``match`` stands for ``match[]``."""
        named = {"match[]" if name == "match" else name: value for name, value in parameters.items()}
        with urllib.request.urlopen(f"{self.url}/api/v1/{question}?{urllib.parse.urlencode(named)}", timeout=10) as got:
            return json.load(got)["data"]


@contextmanager
def scraping(
    prometheus: str, target: str, directory: Path, *options: str, rules: Path | None = None, config_end: str = ""
) -> Iterator[tuple[subprocess.Popen[str], Api]]:
    """Run a Prometheus that scrapes ``target``; yield its process and its API.

    ``config_end`` is what its configuration has besides.
    """
    config = directory / "prometheus.yml"
    config.write_text(
        f"rule_files: [{rules or ''}]\n"
        "scrape_configs:\n  - job_name: demo\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n" + config_end
    )
    port = free_port()
    command = [
        prometheus,
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        *options,
    ]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        yield server, Api(f"http://127.0.0.1:{port}")
