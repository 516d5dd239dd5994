"""The rows of the table: each measures one thing against another, with a bar where something is promised."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import requests_to
from benchmarks.contenders import (
    Metrics,
    backends,
    facade,
    hand_written,
    in_span,
    in_threads,
    separate_backends,
    with_exemplars,
)
from benchmarks.measure import Case, Timing, alternate
from llm_common import action_tracking, configure, dispatch
from llm_common.backends.prometheus import PrometheusBackend
from llm_common.backends.store import BatchedStore
from llm_common.bound import bindings
from llm_common.catalog import (
    HTTP_REQUEST_DURATION,
    HTTP_REQUEST_SIZE,
    HTTP_REQUESTS,
    Buckets,
)
from llm_common.contract import FOLD_AT, HttpSeries, Status
from llm_common.prometheus import metrics_asgi_app, render_metrics

HAND = "prometheus_client, cached children"
FLOOR = "two clocks alone"


@dataclass(frozen=True)
class Row:
    """One figure, with what it was measured against."""

    what: str
    against: str
    figure: float
    unit: str = "x"
    """``x`` for a ratio, else what the figure counts."""
    bar: float | None = None
    """The greatest value that is promised; ``None`` where nothing is."""
    nanoseconds: float | None = None
    """How long one execution took, where that means something."""


def rows(rounds: int, threads_actions: int, http_series: int) -> Iterator[Row]:
    """Yield every row: so many rounds, so many actions for each of eight threads, so many HTTP series."""
    yield from hot_path(rounds)
    yield from multiprocess(rounds)
    yield from several_threads(rounds, threads_actions)
    yield from scrapes(rounds)
    yield from http_scrape(http_series)
    yield from http_middleware(rounds)
    yield stall(rounds)
    yield memory()
    yield from start(rounds)


def against(timings: dict[str, Timing], name: str, other: str, bar: float | None = None) -> Row:
    """Return the row for ``name`` compared with ``other``."""
    return Row(name, other, timings[name].ratio(timings[other]), "x", bar, timings[name].typical * 1e9)


def hot_path(rounds: int) -> Iterator[Row]:
    """Yield what tracking one action costs."""
    every = {**hand_written()}
    for name, configured in backends().items():
        every |= facade(f"{name}: ", configured)
    timings = alternate(every, rounds)
    for name in every:
        if not name.startswith(tuple(f"{one}: " for one in backends())):
            yield against(timings, name, HAND)
    for name in backends():
        for form in ("context manager", "decorator", "decorator, async"):
            bar = 0.45 if name == "prometheus" and "async" not in form else None
            yield against(timings, f"{name}: {form}", HAND, bar)
    yield against(timings, "prometheus: context manager", FLOOR, 1.6)
    yield against(timings, "noop: context manager", FLOOR, 1.25)
    yield from findable(rounds)
    yield from separate(rounds)


def separate(rounds: int) -> Iterator[Row]:
    """Yield what the backends of their own distributions cost beside their libraries, and what exemplars cost."""
    cases = hand_written()
    for name, configured in separate_backends().items():
        forms = facade(f"{name}: ", configured)
        cases[f"{name}: context manager"] = forms[f"{name}: context manager"]
    name = "with exemplars, in a sampled span: context manager"
    cases[name] = in_span(facade("with exemplars, in a sampled span: ", with_exemplars())[name])
    timings = alternate(cases, rounds)
    yield against(timings, "aioprometheus: context manager", "aioprometheus")
    yield against(timings, "opentelemetry: context manager", "OpenTelemetry SDK")
    yield against(timings, "with exemplars, no span active: context manager", HAND)
    yield against(timings, name, HAND)


def findable(rounds: int) -> Iterator[Row]:
    """Yield what tracking costs once something has imported ``current_action()``."""
    dispatch.make_trackers_findable()
    prometheus = backends()["prometheus"]
    every = {**hand_written(), **facade("with current_action() in use: ", prometheus)}
    timings = alternate(
        {name: case for name, case in every.items() if name in {HAND, FLOOR} or "in use" in name}, rounds
    )
    for form in ("context manager", "decorator"):
        yield against(timings, f"with current_action() in use: {form}", HAND)
    yield against(timings, "with current_action() in use: context manager", FLOOR)
    dispatch.state.findable = False
    bindings.clear()


def multiprocess(rounds: int) -> Iterator[Row]:
    """Yield the cost with several processes, measured in a process that has the directory set."""
    with tempfile.TemporaryDirectory() as directory:
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": directory}
        command = [sys.executable, "-m", "benchmarks", "--multiprocess", "--rounds", str(rounds)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    for row in json.loads(done.stdout):
        yield Row(**row)


def multiprocess_rows(rounds: int) -> list[dict[str, object]]:
    """Return the rows that :func:`multiprocess` asks another process for."""
    configure(app="bench", backends=["prometheus"])
    cases = {HAND: hand_written()[HAND], **facade("several processes: ", lambda: None)}
    timings = alternate({name: case for name, case in cases.items() if "async" not in name}, rounds)
    rows = [
        against(timings, f"several processes: {form}", HAND, 1.05 if form == "context manager" else None)
        for form in ("context manager", "decorator")
    ]
    return [asdict(row) for row in rows]


def several_threads(rounds: int, actions: int) -> Iterator[Row]:
    """Yield the cost with one and with eight threads, and how many of their actions were lost under scrapes."""
    count, duration = Metrics().children()
    backends()["prometheus"]()

    def by_hand(number: int) -> None:
        for _ in range(number):
            count.inc()
            duration.observe(0.002)

    def tracked(number: int) -> None:
        for _ in range(number):
            with action_tracking("menu_handler"):
                pass

    for threads in (1, 8):
        each = 20_000 // threads
        ratios = [
            in_threads(threads, tracked, each) / in_threads(threads, by_hand, each) for _ in range(max(5, rounds))
        ]
        yield Row(f"prometheus: context manager, {threads} thread(s)", HAND, median(ratios))

    registry = CollectorRegistry()
    configure(app="bench", backends=[PrometheusBackend(registry)])
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            render_metrics(registry=registry)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    in_threads(8, tracked, actions)
    done.set()
    scraper.join()
    text = render_metrics(registry=registry)[0].decode()
    counted = sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "genapp_action_count_total"
    )
    yield Row(f"lost of 8 x {actions:,} actions during scrapes", "none", 8 * actions - counted, "actions", 0)


def filled(actions: int) -> tuple[CollectorRegistry, Metrics]:
    """Return a registry of ours and the library's metrics, with the same series in both."""
    registry, metrics = CollectorRegistry(), Metrics()
    store = BatchedStore(Buckets())
    registry.register(store)
    for number in range(actions):
        name = f"action_{number}_handler"
        count, duration = metrics.children(name)
        series = store.action(name, "dev", "bench")
        for seconds in (0.003, 0.3, 3.0):
            count.inc()
            duration.observe(seconds)
            series.finished(Status.OK, seconds)
    return registry, metrics


def scrapes(rounds: int) -> Iterator[Row]:
    """Yield what a scrape of many series costs."""
    registry, metrics = filled(1000)
    names = {"ours": registry, "theirs": metrics.registry, "render": render_metrics, "generate_latest": generate_latest}
    cases = {
        "scrape of 1,000 actions": Case("render(registry=ours)", names, number=1),
        "generate_latest, same series": Case("generate_latest(theirs)", names, number=1),
        "generate_latest over ours": Case("generate_latest(ours)", names, number=1),
    }
    render_metrics(registry=registry)  # templates are made once, at the first scrape
    timings = alternate(cases, rounds)
    yield against(timings, "scrape of 1,000 actions", "generate_latest, same series", 0.06)
    yield against(timings, "generate_latest over ours", "generate_latest, same series")


def http_scrape(number: int) -> Iterator[Row]:
    """Yield what a scrape of ``number`` HTTP series costs: requests, durations and both sizes."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    store = BatchedStore(Buckets())
    ours.register(store)
    requests = Counter(HTTP_REQUESTS.family, HTTP_REQUESTS.help, HTTP_REQUESTS.labels, registry=theirs)
    duration, size = (
        Histogram(metric.name, metric.help, metric.labels, registry=theirs, buckets=metric.buckets)
        for metric in (HTTP_REQUEST_DURATION, HTTP_REQUEST_SIZE)
    )
    for index in range(number):
        series = HttpSeries("GET", "200", f"items/{index}/{{id}}", "app_api")
        store.http(series, "dev", "bench").finished(0.002, 100, 1000)
        requests.labels(*series, "dev", "bench").inc()
        duration.labels(*series, "dev", "bench").observe(0.002)
        for direction, amount in (("in", 100), ("out", 1000)):
            size.labels(series.resource, "200", "GET", direction, "app_api", "dev", "bench").observe(amount)
    names = {"ours": ours, "theirs": theirs, "render": render_metrics, "generate_latest": generate_latest}
    cases = {
        f"scrape of {number:,} HTTP series": Case("render(registry=ours)", names, number=1),
        "generate_latest, same series": Case("generate_latest(theirs)", names, number=1),
    }
    yield against(alternate(cases, 5, bursts=1), f"scrape of {number:,} HTTP series", "generate_latest, same series")


def http_middleware(rounds: int) -> Iterator[Row]:
    """Yield what counting one request adds to a FastAPI application, against other middlewares for the same."""
    cases = {
        name: Case("serve(app)", {"serve": requests_to.serve, "app": app}, number=1)
        for name, app in requests_to.applications().items()
    }
    timings = alternate(cases, max(15, rounds), bursts=10)  # short and many, since differences are looked at
    added = {
        name: [one - plain for one, plain in zip(timing.seconds, timings["no middleware"].seconds, strict=True)]
        for name, timing in timings.items()
    }
    others = [name for name in added if name not in {"no middleware", "MetricsMiddleware"}]
    best = min(others, key=lambda name: median(added[name]))
    for name in (*others, "MetricsMiddleware"):
        ratio = median(added[name]) / median(added[best])
        bar = 0.2 if name == "MetricsMiddleware" else None
        nanoseconds = median(added[name]) / requests_to.NUMBER * 1e9
        yield Row(f"added to a FastAPI request by {name}", f"added by {best}", ratio, "x", bar, nanoseconds)


def stall(rounds: int) -> Row:
    """Return the longest time for which an event loop stood still during a scrape through the ASGI application."""
    registry, _ = filled(1000)
    app = metrics_asgi_app(registry)
    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b""}

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None: ...

    async def scrape() -> float:
        task = asyncio.ensure_future(app(scope, receive, send))
        longest = 0.0
        before = perf_counter()
        while not task.done():
            await asyncio.sleep(0)
            now = perf_counter()
            longest = max(longest, now - before)
            before = now
        await task
        return longest

    async def often() -> list[float]:
        await scrape()  # templates are made once, and the pool's thread is started
        return [await scrape() for _ in range(max(5, rounds))]

    worst = median(asyncio.run(often())) * 1000
    return Row("longest stall of an event loop, scrape of 1,000 actions", "milliseconds", worst, "ms", 15)


def allocated(function: Callable[[], object]) -> float:
    """Return how many bytes are in use for what ``function`` returns, beyond what was in use before."""
    gc.collect()
    tracemalloc.start()
    kept = function()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size


def memory() -> Row:
    """Return the memory per action that was tracked and scraped, against the library's children."""
    number = 500

    def ours() -> object:
        registry = CollectorRegistry()
        backend = PrometheusBackend(registry)
        configure(app="bench", backends=[backend])
        for index in range(number):
            for _ in range(FOLD_AT + 1):
                with action_tracking(f"action_{index}_handler"):
                    pass
        render_metrics(registry=registry)
        return registry, dict(bindings)

    def theirs() -> object:
        metrics = Metrics()
        for index in range(number):
            count, duration = metrics.children(f"action_{index}_handler")
            for _ in range(FOLD_AT + 1):
                count.inc()
                duration.observe(0.002)
        generate_latest(metrics.registry)
        return metrics

    bar = 0.6
    figure = allocated(ours) / allocated(theirs)
    configure(app="bench", backends=["noop"])
    return Row("memory per tracked action", "prometheus_client's counter and histogram child", figure, "x", bar)


def start(rounds: int) -> Iterator[Row]:
    """Yield how long importing takes."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

    def seconds(module: str) -> float:
        command = [sys.executable, "-c", code.format(module)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout)

    pairs = [(seconds("llm_common.prometheus"), seconds("prometheus_client")) for _ in range(max(5, rounds))]
    yield Row("import llm_common.prometheus", "import prometheus_client", median(a / b for a, b in pairs), "x", 1.0)
