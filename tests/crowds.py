"""A crowd of threads that track at once while another scrapes all the time: what is counted, and whether it adds up."""

import json
import sys
from collections import Counter
from contextlib import suppress
from threading import Event, Thread
from time import perf_counter

from llm_common.prometheus import action_tracking, configure, http_tracking, render_metrics
from scraping import Series, parsed

NAMES = ("menu_handler", "reindex_task", "answer_llm_call")
EXCHANGE_EVERY = 50


class NoAnswerError(Exception):
    """What some actions are left by."""


def track(actions: int) -> None:
    """Track ``actions`` of each kind by turns: of ten, six end well, two fail, one raises and one is cancelled."""
    for number in range(actions):
        kind = number % 10
        name = NAMES[number % 3]
        if kind < 6:
            with action_tracking(name) as tracker:
                tracker.size(kind)
        elif kind < 8:
            with action_tracking(name) as tracker:
                tracker.to_fail()
        elif kind == 8:
            with suppress(NoAnswerError), action_tracking(name):
                raise NoAnswerError
        else:
            with suppress(GeneratorExit), action_tracking(name) as tracker:
                tracker.first_item()
                raise GeneratorExit
        if number % EXCHANGE_EVERY == 0:
            http_tracking("app_api", "order", "GET", 100, 200, 0.001, number % 7)


def expected(actions: int, threads: int) -> Counter[str]:
    """Return what :func:`totals` has after ``threads`` tracked ``actions`` each; ``actions`` is a multiple of 10."""
    exchanges = -(-actions // EXCHANGE_EVERY)
    return Counter(
        {
            "ok": threads * actions * 6 // 10,
            "error": threads * actions * 3 // 10,
            "cancelled": threads * actions // 10,
            "observed": threads * actions,
            "size": threads * actions // 10 * sum(range(6)),
            "exchanges": threads * exchanges,
            "request bytes": threads * sum(number % 7 for number in range(0, actions, EXCHANGE_EVERY)),
            "response bytes": threads * exchanges * 100,
        }
    )


def totals(values: dict[Series, float]) -> Counter[str]:
    """Return the sums over all series of a scrape."""
    found: Counter[str] = Counter()
    plain = {
        "genapp_action_duration_sec_count": "observed",
        "genapp_action_size_total": "size",
        "genapp_http_requests_total": "exchanges",
        "genapp_action_in_progress": "in progress",
        "genapp_action_first_item_sec_count": "first items",
    }
    for (metric, pairs), value in values.items():
        labels = dict(pairs)
        if metric == "genapp_action_count_total":
            found[labels["status"]] += int(value)
        elif metric == "genapp_http_request_size_bytes_sum":
            found["request bytes" if labels["direction"] == "in" else "response bytes"] += int(value)
        elif metric in plain:
            found[plain[metric]] += int(value)
    return found


def faults(values: dict[Series, float], before: dict[Series, float], one_process: bool) -> list[str]:
    """Return in words what is wrong with a scrape that came after another one."""
    found = [
        f"{key}: {values.get(key)} after {old}"
        for key, old in before.items()
        if key[0].startswith("genapp") and key[0] != "genapp_action_in_progress" and values.get(key, 0) < old
    ]
    if one_process:  # the files of several processes are read one after the other, and written meanwhile
        for (metric, pairs), value in values.items():
            labels = dict(pairs)
            if metric == "genapp_action_duration_sec_count":
                counted = sum(
                    count
                    for (other, other_pairs), count in values.items()
                    if other == "genapp_action_count_total" and dict(other_pairs)["name"] == labels["name"]
                )
                if value != counted:
                    found.append(f"{labels['name']}: {counted} counted and {value} observed")
    return found


def scrape_until(stop: Event, one_process: bool, scrapes: list[int], found: list[str]) -> None:
    """Scrape all the time; write down what is wrong."""
    before: dict[Series, float] = {}
    while not stop.is_set():
        values = parsed(render_metrics()[0].decode())
        found += faults(values, before, one_process)
        before = values
        scrapes[0] += 1


def crowd(actions: int, threads: int, one_process: bool) -> tuple[int, float]:
    """Let the threads track; return how many scrapes there were meanwhile, and how many seconds it took.

    Raises :class:`AssertionError` where one of the scrapes was wrong, or their sum at the end.
    """
    stop, scrapes, found = Event(), [0], list[str]()
    scraper = Thread(target=scrape_until, args=(stop, one_process, scrapes, found))
    workers = [Thread(target=track, args=(actions,)) for _ in range(threads)]
    began = perf_counter()
    for thread in (scraper, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    seconds = perf_counter() - began
    stop.set()
    scraper.join()
    assert found == []
    counted = totals(parsed(render_metrics()[0].decode()))
    for extra, right in (("in progress", 0), ("first items", threads * actions // 10)):
        assert counted.pop(extra, right) == right, extra
    assert counted == expected(actions, threads)
    return scrapes[0], seconds


if __name__ == "__main__":  # pragma: no cover - another process
    configure(app="shop")
    print(json.dumps(crowd(int(sys.argv[1]), int(sys.argv[2]), one_process=False)))
