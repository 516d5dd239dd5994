"""Every query of the dashboards, asked of a Prometheus and of a VictoriaMetrics that know the demo."""

import math
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exported import dashboards, filled, targets, variables
from llm_common.catalog import ACTION_COUNT
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import RECORDINGS
from llm_common.monitoring.rules import INTERVAL, recording_rules_file
from servers import Api, demo, eventually, free_port, program, running, scraping

pytestmark = [pytest.mark.e2e, pytest.mark.once]

WEEK = 7 * 24 * 3600
HISTORY = 1200
"""How much of the demo's past is made up, in seconds, before now and before the same time last week."""
STEP = 60
SELECTED = {"env": "(dev|preprod)", "app": "demo_bot", "app_type": ".*", "resource": ".*", "name": ".*"}
"""Some of each variable, as Grafana writes it: one value, several, all."""

NOT_IN_VICTORIA_METRICS: set[str] = set()
"""Where queries are that VictoriaMetrics can't answer."""

NEEDED = [
    *(f'name="{name}_handler",status="{status}"' for name, status in (("menu", "ok"), ("question", "error"))),
    *(f'name="question_handler",status="{status}"' for status in ("ok", "cancelled")),
    *('name="reindex_task",status="ok"', 'name="support_agent",status="cancelled"'),
    *('genapp_action_first_item_sec_count{app="demo_bot",env="preprod",name="answer_stream"}', 'token_type="output"'),
    *('resource="answers/stream",status="499"', 'app_type="llm",env="preprod",method="POST"', 'status="503"'),
    *('status="500"', 'operation="llm_common_classify_exception"'),
]
"""What is on the demo's page once everything has happened that its customers do."""


def page_of(target: str) -> str:
    """Return the demo's page once all is there that the dashboards show."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text if all(one in text for one in NEEDED) else ""


def selector(name: str, labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{pairs}}}"


def history(page: str, target: str, ends: list[float]) -> str:
    """Return a past that leads to the demo's page in OpenMetrics, once before each of ``ends``.

    Counters grow evenly to what they are, so that a rate is the same at any time of it; gauges are what they are.
    """
    lines = []
    for family in text_string_to_metric_families(page):
        if not family.name.startswith("genapp_"):
            continue
        lines.append(f"# TYPE {family.name} {family.type}")
        for sample in family.samples:
            series = selector(sample.name, {**sample.labels, "job": "demo", "instance": target})
            for end in ends:
                for age in range(HISTORY, -1, -STEP):
                    part = 1 if family.type == "gauge" else 1 - age / HISTORY
                    lines.append(f"{series} {sample.value * part!r} {end - age:.3f}")
    return "\n".join([*lines, "# EOF", ""])


def rules_file(directory: Path) -> Path:
    path = directory / "rules.yml"
    path.write_text(recording_rules_file().replace(f"interval: {INTERVAL}", "interval: 1s"))
    return path


def recorded_history(promtool: str, api: Api, rules: Path, directory: Path, ends: list[float]) -> None:
    """Write what the rules would have recorded."""
    for end in ends:
        when = [f"--start={end - HISTORY:.0f}", f"--end={end:.0f}", f"--eval-interval={STEP}s", f"--url={api.url}"]
        command = [promtool, "tsdb", "create-blocks-from", "rules", *when, f"--output-dir={directory / 'data'}"]
        subprocess.run([*command, str(rules)], check=True, capture_output=True)


def copied(source: Api, destination: str, ends: list[float]) -> None:
    """Import all that the one server knows of the demo into the other."""
    lines = []
    for end in ends:
        when = {"start": end - HISTORY, "end": end, "step": STEP}
        for series in source("query_range", query='{__name__=~".*genapp_.*"}', **when)["result"]:
            labels = dict(series["metric"])
            name = labels.pop("__name__")
            lines += [f"{selector(name, labels)} {value} {round(at * 1000)}" for at, value in series["values"]]
    body = "\n".join(lines).encode()
    request = urllib.request.Request(f"{destination}/api/v1/import/prometheus", body, method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    urllib.request.urlopen(f"{destination}/internal/force_flush", timeout=30).close()


def undecided(directory: Path) -> dict[str, str]:
    """Install a plugin that fails, so that there are faults to show. Return the environment that uses it."""
    (directory / "undecided.py").write_text(
        "from llm_common import hookimpl\n@hookimpl\ndef llm_common_classify_exception(exception): raise LookupError\n"
    )
    (directory / "undecided-1.dist-info").mkdir()
    (directory / "undecided-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: undecided\nVersion: 1\n"
    )
    (directory / "undecided-1.dist-info" / "entry_points.txt").write_text("[llm_common]\nundecided = undecided\n")
    return {"PYTHONPATH": str(directory), "LLM_COMMON_PLUGINS": "undecided"}


class Known(NamedTuple):
    """The servers, and the moment at which they are asked."""

    prometheus: Api
    victoria_metrics: Api
    now: float


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    prometheus, promtool, victoria_metrics = map(program, ("prometheus", "promtool", "victoria-metrics"))
    directory = tmp_path_factory.mktemp("servers")
    rules = rules_file(directory)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    listen = [f"-storageDataPath={directory / 'victoria'}", f"-httpListenAddr=127.0.0.1:{port}"]
    command = [victoria_metrics, *listen, "-search.latencyOffset=0s", "-retentionPeriod=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with demo(**undecided(directory)) as target, running(command, **quiet) as victoria:
        page = eventually(lambda: page_of(target), victoria)
        now = time.time()
        ends = [now, now - WEEK + HISTORY / 2]
        (directory / "history").write_text(history(page, target, ends))
        create = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(directory / "history")]
        subprocess.run([*create, str(directory / "data")], check=True, capture_output=True)
        with scraping(prometheus, target, directory) as (server, api):
            eventually(lambda: api("query", query="up")["result"], server)
            recorded_history(promtool, api, rules, directory, ends)
        with scraping(prometheus, target, directory, rules=rules) as (server, api):
            fresh = f"timestamp({next(iter(RECORDINGS.values())).name}) > {time.time()}"
            eventually(lambda: api("query", query=fresh)["result"], server)
            now = time.time()
            copied(api, url, [now, now - WEEK + HISTORY / 2])
            yield Known(api, Api(url), now)


def answer(api: Api, target: dict[str, Any], now: float, seconds: int = HISTORY) -> list[float]:
    """Return the numbers that the query of a panel is answered with, none of which is NaN."""
    query = filled(target["expr"], {**SELECTED, "__range": f"{seconds}s"})
    assert "$" not in query
    if target["range"]:
        found = api("query_range", query=query, start=now - 300, end=now, step=60)["result"]
        numbers = [float(value) for series in found for _, value in series["values"]]
    else:
        numbers = [float(series["value"][1]) for series in api("query", query=query, time=now)["result"]]
    return [number for number in numbers if not math.isnan(number)]


def asked(api: Api, known: Known, *, recorded: bool) -> dict[str, str]:
    """Return where the queries are that have no answer, and why."""
    without = {}
    for dashboard in dashboards(Options(recording_rules=recorded)).values():
        for place, target in targets(dashboard):
            try:
                if not answer(api, target, known.now):
                    without[place] = f"no data: {target['expr']}"
            except urllib.error.HTTPError as refused:
                without[place] = f"{refused.read().decode()}: {target['expr']}"
    return without


@pytest.mark.parametrize("server", ["prometheus", "victoria_metrics"])
@pytest.mark.parametrize("nothing", [f'{ACTION_COUNT.name}{{app="none"}}', f"0 * {ACTION_COUNT.name} / 0"])
def test_no_series_and_no_number_are_no_answer(known: Known, server: str, nothing: str) -> None:
    for instant in (True, False):
        assert answer(getattr(known, server), {"expr": nothing, "range": not instant}, known.now) == []


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "raw"])
def test_every_query_has_an_answer_of_prometheus(known: Known, recorded: bool) -> None:
    assert asked(known.prometheus, known, recorded=recorded) == {}


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "raw"])
def test_every_query_has_an_answer_of_victoria_metrics(known: Known, recorded: bool) -> None:
    assert asked(known.victoria_metrics, known, recorded=recorded).keys() == NOT_IN_VICTORIA_METRICS


@pytest.mark.parametrize("server", ["prometheus", "victoria_metrics"])
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "raw"])
def test_every_variable_has_values(known: Known, server: str, recorded: bool) -> None:
    api: Api = getattr(known, server)
    for dashboard in dashboards(Options(recording_rules=recorded)).values():
        for name, variable in variables(dashboard).items():
            if found := re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]):
                series = filled(found[1], SELECTED)
                values = api(f"label/{found[2]}/values", match=series, start=known.now - HISTORY, end=known.now)
                assert found[2] == name
                assert values, series


def test_what_was_recorded_says_the_same_as_the_raw_series(known: Known) -> None:
    rough, inside = 0.05, 600  # the rules looked at slightly other moments, and from the first samples on
    recorded, raw = (dashboards(Options(recording_rules=one)) for one in (True, False))
    compared = 0
    for uid, dashboard in recorded.items():
        for (place, one), (_, other) in zip(targets(dashboard), targets(raw[uid]), strict=True):
            ours, theirs = (sum(answer(known.prometheus, target, known.now - 300, inside)) for target in (one, other))
            assert ours == pytest.approx(theirs, rel=rough, abs=1e-9), place
            compared += 1
    assert compared > 120
