"""The examples of scheduled jobs run as they stand, and serve the metrics that they announce."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import pytest

from scraping import Series, parsed, series

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60


@contextmanager
def running(example: str) -> Iterator[str]:
    """Run an example, yield the address of its metrics, and have it end as its user would."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / example)],
        env={**os.environ, "METRICS_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("metrics at ")), "")
        assert line, process.communicate()[1]
        yield line.split()[-1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def scraped_with(url: str, total: int) -> dict[Series, float]:
    """Return the first scrape that shows so many runs in all."""
    deadline = monotonic() + PATIENCE
    while True:
        with urlopen(url) as response:
            values = parsed(response.read().decode())
        runs = sum(value for (name, _), value in values.items() if name == "genapp_action_count_total")
        if runs == total:
            return values
        assert runs < total
        assert monotonic() < deadline


@pytest.mark.e2e
def test_the_scheduler() -> None:
    with running("scheduler.py") as url:
        values = scraped_with(url, 2)
    labels = {"env": "dev", "app": "shop_jobs"}
    assert values[series("genapp_action_count_total", name="refresh_prices_task", status="ok", **labels)] == 1
    assert values[series("genapp_action_count_total", name="clean_up_task", status="error", **labels)] == 1
    assert values[series("genapp_action_size_total", name="refresh_prices_task", **labels)] == 3


@pytest.mark.e2e
def test_the_worker() -> None:
    with running("celery_tasks.py") as url:
        values = scraped_with(url, 4)
    labels = {"env": "dev", "app": "shop_tasks"}
    assert values[series("genapp_action_count_total", name="pack_order_task", status="ok", **labels)] == 2
    assert values[series("genapp_action_size_total", name="pack_order_task", **labels)] == 4
    assert values[series("genapp_action_count_total", name="invoice_task", status="error", **labels)] == 1
    assert values[series("genapp_action_count_total", name="invoice_task", status="ok", **labels)] == 1
