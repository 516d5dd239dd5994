"""A metric or label that is renamed in the catalogue shows in each asset that used it, and in no other."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import yaml

from llm_common.catalog import CATALOGUE, Metric
from llm_common.monitoring.checking.queries import panels
from llm_common.monitoring.checking.run import check
from llm_common.monitoring.checking.sources import Source
from llm_common.monitoring.checking.vocabulary import Vocabulary, series_name, vocabulary
from llm_common.monitoring.dashboards import dashboard_files
from llm_common.monitoring.options import Options
from llm_common.monitoring.promql import EVERY_RECORDING, PARTS
from llm_common.monitoring.rules import alert_rules_file, recording_rules_file

pytestmark = pytest.mark.once

LABELS = sorted({label for metric in CATALOGUE for label in metric.labels})


def files() -> dict[str, str]:
    found = {"recording.yml": recording_rules_file(), "alerts.yml": alert_rules_file(Options())}
    for recorded in (True, False):
        dashboards = dashboard_files(Options(recording_rules=recorded))
        found |= {f"{'recorded' if recorded else 'raw'}/{name}": text for name, text in dashboards.items()}
    return found


def pieces() -> Iterator[tuple[str, str]]:
    """Yield each panel, each variable and each rule as an asset of its own."""
    for name, text in files().items():
        if name.endswith(".yml"):
            for group in yaml.safe_load(text)["groups"]:
                for number, rule in enumerate(group["rules"]):
                    alone = {"groups": [{"name": "one", "rules": [rule]}]}
                    yield f"{name}/{rule.get('record') or rule['alert']}/{number}.yml", yaml.safe_dump(alone)
            continue
        document = json.loads(text)
        variables = document["templating"]["list"]
        for number, panel in enumerate(panels(document)):
            one_panel = {
                "panels": [panel],
                "templating": {"list": [one for one in variables if one["type"] == "custom"]},
            }
            yield f"{name}/{number}.json", json.dumps(one_panel)
        for one in variables:
            yield f"{name}/{one['name']}.json", json.dumps({"panels": [], "templating": {"list": [one]}})


FILES = files()
PIECES = dict(pieces())


def expressions(text: str) -> list[str]:
    """Return all that could be an expression: every text of the asset that isn't for people."""
    found: list[str] = []
    pending = [yaml.safe_load(text)] if text.lstrip().startswith("groups") else [json.loads(text)]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending += one
        elif isinstance(one, dict):
            found += [one[key] for key in ("expr", "query", "record") if isinstance(one.get(key), str)]
            pending += one.values()
    return found


def has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w:$]){re.escape(word)}(?![\w:])", text) is not None


def uses_metric(text: str, metric: Metric) -> bool:
    names = {series_name(metric, part) for part in PARTS[metric.kind]}
    names |= {one.name for one in EVERY_RECORDING if one.metric is metric}
    return any(has_word(one, name) for one in expressions(text) for name in names)


def uses_label(text: str, label: str) -> bool:
    recorded = [one.name for one in EVERY_RECORDING if label in one.labels]
    bare = [re.sub(r'"[^"]*"', '""', one) for one in expressions(text)]
    return any(has_word(one, label) or any(has_word(one, name) for name in recorded) for one in bare)


def changed(before: Metric | None, name: str = "", label: str = "") -> Vocabulary:
    """Return the vocabulary of a catalogue in which a metric has another name, or a label in all metrics."""

    def renamed(labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"other_{one}" if one == label else one for one in labels)

    after = {
        one.name: replace(one, name=name if one is before else one.name, labels=renamed(one.labels))
        for one in CATALOGUE
    }
    recordings = [one._replace(metric=after[one.metric.name], labels=renamed(one.labels)) for one in EVERY_RECORDING]
    return vocabulary(after.values(), recordings)


def found_in(known: Vocabulary, name: str, text: str) -> bool:
    return bool(check([Source(name, path=f"/{name}", given=text.encode())], known)[0])


@pytest.mark.parametrize("name", [*FILES, *PIECES])
def test_what_is_exported_names_nothing_but_what_exists(name: str) -> None:
    text = (FILES | PIECES)[name]
    assert check([Source(name, path=f"/{name}", given=text.encode())])[0] == []


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_renamed_metric_is_found_in_each_asset_that_used_it(metric: Metric) -> None:
    known = changed(metric, name=metric.name.replace("genapp_", "genapp_other_"))
    used = {name: uses_metric(text, metric) for name, text in (FILES | PIECES).items()}
    assert {name: found_in(known, name, text) for name, text in (FILES | PIECES).items()} == used
    assert True in used.values()
    assert False in used.values()


@pytest.mark.parametrize("label", LABELS)
def test_a_renamed_label_is_found_in_each_asset_that_used_it(label: str) -> None:
    known = changed(None, label=label)
    used = {name: uses_label(text, label) for name, text in (FILES | PIECES).items()}
    assert {name: found_in(known, name, text) for name, text in (FILES | PIECES).items()} == used
    assert True in used.values()


def test_together_with_the_rules_that_record_for_them_dashboards_show_it_as_well() -> None:
    known = changed(None, label="resource")
    sources = [Source(name, path=f"/{name}", given=text.encode()) for name, text in FILES.items()]
    found = {one.path for one in check(sources, known)[0]}
    assert found == {"recording.yml", "alerts.yml", "recorded/http.json", "raw/http.json"} & {
        name for name, text in FILES.items() if uses_label(text, "resource")
    }
