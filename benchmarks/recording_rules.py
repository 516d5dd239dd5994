"""``python -m benchmarks.recording_rules``: what the dashboard of actions costs with and without recorded rates.

Many instances of an application that ran for a while are written into a real Prometheus, which records the rules over
them. Then it is asked everything that the dashboard asks, once of the recorded series and once of the raw ones. Both
have to give the same answers.
"""

import argparse
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from llm_common.action_names import LLM_CALL, SUFFIXES
from llm_common.catalog import (
    ACTION_COUNT,
    ACTION_DURATION,
    ACTION_FIRST_ITEM,
    ACTION_IN_PROGRESS,
    ACTION_SIZE,
    BACKEND_ERRORS,
    LLM_TOKENS,
    Metric,
)
from llm_common.contract import Status
from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import WINDOW_SECONDS
from llm_common.monitoring.rules import recording_rules_file

EVERY = 60
"""Seconds between two samples of a series. A real Prometheus has more of them, so that raw queries cost more there."""

HISTORY = 10
"""Minutes before those that are looked at, so that the first rates have their window."""


class Question(NamedTuple):
    """One expression of a panel."""

    panel: str
    expression: str
    instant: bool


class Asked(NamedTuple):
    """What a question took with the rules and without, in seconds, and whether the answers are the same."""

    question: Question
    recorded: float
    raw: float
    series: int
    same: bool


def questions(options: Options, minutes: int) -> list[Question]:
    """Return what the dashboard of actions asks over now, its variables filled with everything."""
    dashboard = json.loads(dashboard_files(options)["actions.json"])
    return [
        Question(title, filled, bool(target.get("instant")))
        for title, target in targets(dashboard, "")
        if "offset" not in (filled := fill(target["expr"], minutes))  # a week ago there was nothing
    ]


def fill(expression: str, minutes: int) -> str:
    """Return an expression with Grafana's variables replaced by what they stand for where everything is selected."""
    return re.sub(r"\$\{?(?!__)\w+(?::\w+)?\}?", ".*", expression.replace("$__range", f"{minutes}m"))


def targets(node: Any, title: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every query below ``node`` with the title of its panel."""
    if isinstance(node, dict):
        title = str(node.get("title", title))
        if isinstance(node.get("expr"), str):
            yield title, node
        for value in node.values():
            yield from targets(value, title)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value, title)


class Samples:
    """A file of OpenMetrics with the counters of many instances, each of which grows by itself and evenly."""

    def __init__(self, path: Path, times: Sequence[int]) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.times = times
        self.series = 0

    def family(self, metric: Metric) -> None:
        """Begin a family."""
        self.file.write(f"# TYPE {metric.family} {metric.kind}\n")

    def add(self, name: str, labels: Mapping[str, str], growth: int) -> None:
        """Write one series that grows by ``growth``, a whole number so that sums are exact, from sample to sample."""
        self.series += 1
        shown = ",".join(f'{label}="{value}"' for label, value in labels.items())
        self.file.writelines(f"{name}{{{shown}}} {growth * place} {at}\n" for place, at in enumerate(self.times))

    def histogram(self, metric: Metric, labels: Mapping[str, str], growth: int, shape: float) -> None:
        """Write the series of a histogram; the higher ``shape``, the longer are most of its durations."""
        for place, bound in enumerate(metric.buckets, 1):
            inside = round(growth * (place / len(metric.buckets)) ** shape)
            self.add(f"{metric.name}_bucket", {**labels, "le": repr(float(bound))}, inside)
        self.add(f"{metric.name}_bucket", {**labels, "le": "+Inf"}, growth)
        self.add(f"{metric.name}_sum", labels, 3 * growth)
        self.add(f"{metric.name}_count", labels, growth)


def write_samples(path: Path, instances: int, actions: int, times: Sequence[int]) -> int:
    """Write what ``instances`` with ``actions`` each would have shown; return how many series that is.

    No two actions have the same figures, since which of them are the first fifteen would be anybody's choice.
    """
    kinds = (*SUFFIXES, "")
    series = [
        (
            {"app": "shop_bot", "env": "prod", "instance": f"shop-{instance}:8000", "name": name},
            600 * (1 + (7 * instance + number) % 5) + number,
            number,
        )
        for instance in range(instances)
        for number in range(actions)
        for name in [f"step_{number}{kinds[number % len(kinds)]}"]
    ]
    calls = [one for one in series if one[0]["name"].endswith(LLM_CALL)]
    samples = Samples(path, times)
    with samples.file:
        samples.family(ACTION_DURATION)
        for labels, runs, number in series:
            samples.histogram(ACTION_DURATION, labels, runs, 1 + number / actions)
        samples.family(ACTION_COUNT)
        for labels, runs, number in series:
            failed, stopped = 2 * number, number
            grown = {Status.OK: runs - failed - stopped, Status.ERROR: failed, Status.CANCELLED: stopped}
            for status, growth in grown.items():
                samples.add(ACTION_COUNT.name, {**labels, "status": status}, growth)
        samples.family(ACTION_SIZE)
        for labels, runs, _ in series:
            samples.add(ACTION_SIZE.name, labels, 100 * runs)
        samples.family(ACTION_FIRST_ITEM)
        for labels, runs, number in calls:
            samples.histogram(ACTION_FIRST_ITEM, labels, runs, 1 + number / actions)
        samples.family(LLM_TOKENS)
        for labels, runs, _ in calls:
            for kind in ("input", "output"):
                samples.add(LLM_TOKENS.name, {**labels, "token_type": kind, "model": "small"}, 50 * runs)
        samples.family(ACTION_IN_PROGRESS)
        for labels, _, _ in series:
            samples.add(ACTION_IN_PROGRESS.name, labels, 1)
        samples.family(BACKEND_ERRORS)
        for instance in range(instances):
            labels = {"app": "shop_bot", "env": "prod", "instance": f"shop-{instance}:8000"}
            samples.add(BACKEND_ERRORS.name, {**labels, "backend": "otel", "operation": "finished"}, instance + 1)
        samples.file.write("# EOF\n")
    return samples.series


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a Prometheus over the blocks in ``folder`` that scrapes nothing; yield its address once it is ready."""
    config = folder / "prometheus.yml"
    config.write_text("{}\n")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=30d",
        f"--web.listen-address={address}",
        "--query.max-samples=500000000",
        "--log.level=error",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                if server.poll() is not None:
                    raise SystemExit("Prometheus ended at its start")
                try:
                    urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)  # it says in no other way when it is ready
            yield f"http://{address}"
        finally:
            server.terminate()


def ask(address: str, question: Question, start: int, end: int) -> dict[str, list[tuple[float, float]]]:
    """Return the answer: the values over time by the labels of their series."""
    if question.instant:
        kind, when = "query", {"time": end}
    else:
        kind, when = "query_range", {"start": start, "end": end, "step": EVERY}
    parameters = urllib.parse.urlencode({"query": question.expression, **when})
    with urllib.request.urlopen(f"{address}/api/v1/{kind}?{parameters}", timeout=600) as answer:
        result = json.load(answer)["data"]["result"]
    return {
        json.dumps(one["metric"], sort_keys=True): [
            (at, float(value)) for at, value in one.get("values") or [one["value"]]
        ]
        for one in result
    }


def same(one: dict[str, list[tuple[float, float]]], other: dict[str, list[tuple[float, float]]]) -> bool:
    """Return whether two answers are the same but for the rounding of sums in another order."""

    def close(first: tuple[float, float], second: tuple[float, float]) -> bool:
        at, value = first
        alike = math.isclose(value, second[1], rel_tol=1e-9, abs_tol=1e-12)
        return at == second[0] and (alike or (math.isnan(value) and math.isnan(second[1])))

    return one.keys() == other.keys() and all(
        len(values) == len(other[series]) and all(map(close, values, other[series])) for series, values in one.items()
    )


def measure(address: str, start: int, end: int, rounds: int) -> list[Asked]:
    """Ask everything in turn of the recorded and of the raw series; the fastest of ``rounds`` counts."""
    asked = []
    minutes = (end - start) // 60
    for recorded, raw in zip(
        questions(Options(), minutes), questions(Options(recording_rules=False), minutes), strict=True
    ):
        seconds: dict[Question, list[float]] = {recorded: [], raw: []}
        answers = {}
        for _ in range(rounds):
            for question in (recorded, raw):
                began = time.perf_counter()
                answers[question] = ask(address, question, start, end)
                seconds[question].append(time.perf_counter() - began)
        first, second = answers[recorded], answers[raw]
        asked.append(Asked(recorded, min(seconds[recorded]), min(seconds[raw]), len(first), same(first, second)))
    return asked


def table(asked: list[Asked]) -> Table:
    """Return what was measured as a table for people."""
    shown = Table(title="the dashboard of actions")
    shown.add_column("panel")
    for heading in ("series", "recorded, ms", "raw, ms", "ratio", "same answer"):
        shown.add_column(heading, justify="right")
    for one in asked:
        figures = (
            f"{one.series}",
            f"{1000 * one.recorded:.1f}",
            f"{1000 * one.raw:.1f}",
            f"{one.recorded / one.raw:.3f}",
        )
        shown.add_row(one.question.panel, *figures, "yes" if one.same else "NO")
    return shown


def main() -> int:
    """Run what the arguments say. Returns the exit status: 1 where an answer differs or is empty."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording_rules", description=__doc__)
    parser.add_argument("--instances", type=int, default=200, help="how many instances run (default 200)")
    parser.add_argument("--actions", type=int, default=100, help="how many actions each has (default 100)")
    parser.add_argument("--minutes", type=int, default=20, help="over how long it looks, in fives (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per question (default 3)")
    options = parser.parse_args()
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            parser.error(f"the program {program} is missing (Debian package prometheus)")
    console = Console(width=None if sys.stdout.isatty() else 130)
    if options.minutes % 5:
        parser.error("--minutes takes a multiple of 5, the window of the recorded rates")
    end = int(time.time()) // WINDOW_SECONDS * WINDOW_SECONDS - EVERY  # between two windows, as almost every moment is
    looked_at = end - 60 * options.minutes
    start = looked_at - 60 * HISTORY
    with tempfile.TemporaryDirectory() as name, console.status("writing samples") as status:
        folder = Path(name)
        samples, rules, data = folder / "samples.txt", folder / "rules.yml", folder / "data"
        series = write_samples(samples, options.instances, options.actions, range(start, end + 1, EVERY))
        rules.write_text(recording_rules_file())
        promtool("tsdb", "create-blocks-from", "openmetrics", samples, data)
        samples.unlink()
        status.update("recording the rules")
        with serving(folder) as address:
            times = (f"--start={start}", f"--end={end}", f"--eval-interval={EVERY}s")
            promtool("tsdb", "create-blocks-from", "rules", *times, f"--url={address}", f"--output-dir={data}", rules)
        status.update("asking")
        with serving(folder) as address:
            asked = measure(address, looked_at, end, options.rounds)
    console.print(table(asked))
    recorded, raw = sum(one.recorded for one in asked), sum(one.raw for one in asked)
    different = [one.question.panel for one in asked if not one.same]
    console.print(
        f"{options.instances} instances with {options.actions} actions, {series:,} series, {options.minutes} minutes: "
        f"{1000 * recorded:,.0f} ms recorded, {1000 * raw:,.0f} ms raw, "
        f"ratio {recorded / raw:.3f} (median of the questions {median(one.recorded / one.raw for one in asked):.3f}); "
        f"{len(asked) - len(different)} of {len(asked)} answers the same"
    )
    return 1 if different or any(one.series == 0 for one in asked) else 0


def promtool(*arguments: object) -> None:
    """Run promtool; what it says is shown where it fails."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"promtool failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
