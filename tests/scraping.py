"""Reading a scrape back with prometheus_client's own parser."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
Scrape = Callable[[], dict[Series, float]]


def parsed(text: str) -> dict[Series, float]:
    """Return each series of a scrape with its value, as prometheus_client's own parser reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def series(name: str, /, **labels: str) -> Series:
    """Return the key of a series in what a scrape was parsed to."""
    return name, tuple(sorted(labels.items()))


def scrape_of(directory: Path) -> dict[Series, float]:
    """Return the sum over the processes that wrote to ``directory``, as another process serves it."""
    code = "import sys; from llm_common.prometheus import render_metrics; sys.stdout.buffer.write(render_metrics()[0])"
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    scrape = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    return parsed(scrape.stdout)


def action_totals(directory: Path, app: str) -> dict[tuple[str, str], float]:
    """Return how often each action ended with each status, summed over the processes that wrote to ``directory``."""
    return {
        (labels["name"], labels["status"]): value
        for (name, pairs), value in scrape_of(directory).items()
        if name == "genapp_action_count_total" and (labels := dict(pairs))["app"] == app
    }


def action_seconds(directory: Path) -> dict[str, float]:
    """Return how long each action took in all, summed over the processes that wrote to ``directory``."""
    return {
        dict(pairs)["name"]: value
        for (name, pairs), value in scrape_of(directory).items()
        if name == "genapp_action_duration_sec_sum"
    }
