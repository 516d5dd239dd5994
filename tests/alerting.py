"""A real Alertmanager for tests, in a hurry, that tells what it has to tell on loopback."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llm_common.monitoring.alertmanager import TEMPLATE, alertmanager_file, telegram_template
from llm_common.monitoring.options import Options
from servers import eventually, free_port, program, running
from telegram_api import TOKEN
from telegram_chat import Chats

OWN_VERSION = (0, 25)
"""Debian's Alertmanager, which wants the token in its configuration."""
SECONDS = {"s": 1, "m": 60, "h": 3600}


def hurried(config: str, times: int) -> str:
    """Return the configuration with all waiting so many times shorter, and nothing else changed."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, int(found[2]) * SECONDS[found[3]] * 1000 // times)}ms"

    return re.sub(r"(group_wait: |group_interval: |repeat_interval: )(\d+)([smh])", shorter, config)


def hurried_rules(rules: str) -> str:
    """Return rules that look back 10 seconds where they look back 5 minutes, and wait for seconds, not for minutes.

    The names of the recorded series, the expressions and the thresholds stay as they are.
    """
    rules = rules.replace("[5m]", "[10s]").replace("interval: 1m", "interval: 500ms")
    return re.sub(r"for: \d+m", "for: 2s", rules)


class Alertmanager:
    """A running Alertmanager: alerts are sent to it as Prometheus does."""

    def __init__(self, address: str) -> None:
        self.address = address
        """Host and port."""

    def send(self, *alerts: dict[str, Any]) -> None:
        """Send alerts as :func:`firing` and :func:`resolved` make them."""
        request = urllib.request.Request(
            f"http://{self.address}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()


def firing(annotations: dict[str, str] | None = None, /, **labels: str) -> dict[str, Any]:
    ends = datetime.now(UTC) + timedelta(hours=1)
    return {"labels": labels, "annotations": annotations or {}, "endsAt": ends.isoformat()}


def resolved(alert: dict[str, Any]) -> dict[str, Any]:
    return {**alert, "endsAt": datetime.now(UTC).isoformat()}


@contextmanager
def alertmanager(directory: Path, chats: Chats, options: Options, times: int = 60) -> Iterator[Alertmanager]:
    """Run an Alertmanager whose hours are minutes; ``times`` says how much faster it is."""
    own = replace(options, alertmanager=OWN_VERSION, telegram_api=chats.url)
    (directory / "alertmanager.yml").write_text(hurried(alertmanager_file(own, TOKEN), times))
    (directory / TEMPLATE).write_text(telegram_template())
    port = free_port()
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        server = Alertmanager(f"127.0.0.1:{port}")
        eventually(
            lambda: urllib.request.urlopen(f"http://{server.address}/-/ready", timeout=5).close() or True, process
        )
        yield server
