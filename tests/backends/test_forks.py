"""A fork without a directory for several processes: each process counts what is its own, and one says so."""

import os
import subprocess
import sys

import pytest

from scraping import parsed

PROGRAM = """
import os, sys
from llm_common import action_tracking, configure
from llm_common.prometheus import http_tracking, render_metrics

configure(app="shop", extra_metrics="all", strict=True)

def order():
    with action_tracking("order_handler") as tracker:
        tracker.size(1)
        tracker.first_item()
    http_tracking("web", "order", "GET", 1, 200, 0.1, 1)

def show():
    sys.stdout.buffer.write(render_metrics()[0] + b"# next\\n")
    sys.stdout.flush()

for _ in range(int(sys.argv[1])):
    order()
for _ in range(2):
    child = os.fork()
    if child == 0:
        if sys.argv[2] == "scraped":
            show()
        order()
        show()
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(child, 0)
order()
show()
"""


def run(*arguments: str, code: str = PROGRAM) -> tuple[list[list[float]], str]:
    environ = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    series = (
        "action_count_total",
        "action_size_total",
        "action_duration_sec_count",
        "action_first_item_sec_count",
        "http_requests_total",
    )
    scrapes = [parsed(scrape) for scrape in done.stdout.split("# next\n")[:-1]]
    return [
        [sum(value for (name, _), value in scrape.items() if name == f"genapp_{one}") for one in series]
        for scrape in scrapes
    ], done.stderr


@pytest.mark.parametrize("before", [0, 3, 700])
def test_a_child_begins_at_zero_and_its_parent_goes_on(before: int) -> None:
    shown, logged = run(str(before), "counting")
    assert shown == [[1] * 5, [1] * 5, [before + 1] * 5]
    assert logged.count("was forked, and counts for itself") == 1  # by one of the children
    assert "set PROMETHEUS_MULTIPROC_DIR to an empty directory before the processes start" in logged


def test_a_child_that_is_scraped_before_it_counts_shows_nothing_of_its_parent() -> None:
    shown, logged = run("3", "scraped")
    assert shown == [[0] * 5, [1] * 5, [0] * 5, [1] * 5, [4] * 5]
    assert logged.count("was forked, and counts for itself") == 1


def test_a_child_that_counts_nothing_is_no_cause_for_a_warning() -> None:
    quiet = PROGRAM.replace("        order()\n        show()\n", "")
    shown, logged = run("3", "counting", code=quiet)
    assert (shown, logged) == ([[4] * 5], "")
