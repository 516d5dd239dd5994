"""The dashboards are what Grafana's own published types say that dashboards are."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from exported import Dashboard, dashboards, panels
from llm_common.monitoring.options import Options
from servers import program

pytestmark = [pytest.mark.e2e, pytest.mark.once]

PROJECT = Path(__file__).parent / "grafana_schema"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the types and a compiler; nothing of it is kept."""
    directory = tmp_path_factory.mktemp("schema")
    shutil.copytree(PROJECT, directory, dirs_exist_ok=True)
    install = [program("npm"), "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=directory, capture_output=True, text=True)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"the types can't be installed here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return directory


def complaints(directory: Path, contents: dict[str, Dashboard]) -> dict[str, list[str]]:
    """Return what the compiler has to say about each of the dashboards."""
    for name, content in contents.items():
        literal = json.dumps(content, indent=1)  # as a literal, in which the compiler allows nothing superfluous
        text = f'import type {{ Exported }} from "./exported.js";\nexport default {literal} satisfies Exported;\n'
        (directory / f"{name}.ts").write_text(text)
    compiler = [str(directory / "node_modules" / ".bin" / "tsc"), "--project", str(directory), "--pretty", "false"]
    lines = subprocess.run(compiler, capture_output=True, text=True).stdout.splitlines()
    said: dict[str, list[str]] = {name: [] for name in contents}
    for line in lines:
        if not line.startswith(" "):
            said[Path(line.partition(".ts(")[0]).name].append(line)
    for name in contents:
        (directory / f"{name}.ts").unlink()
    return said


def test_the_dashboards_are_of_grafanas_type(schema: Path) -> None:
    exported = {
        f"{uid}_{recorded}": content
        for recorded in (True, False)
        for uid, content in dashboards(Options(recording_rules=recorded)).items()
    }
    assert complaints(schema, exported) == {name: [] for name in exported}


Change = Callable[[Dashboard], Any]


def first(dashboard: Dashboard, kind: str) -> dict[str, Any]:
    return next(panel for _, panel in panels(dashboard) if panel["type"] == kind)


def small() -> Dashboard:
    """Return a dashboard with one panel of each kind, since a compiler takes its time."""
    dashboard = dashboards()["llm-common-actions"]
    kept = [first(dashboard, kind) for kind in ("timeseries", "stat", "table")]
    folded = next(one for one in dashboard["panels"] if one.get("collapsed"))
    heatmap = first(dashboard, "heatmap")
    return {**dashboard, "panels": [{**folded, "panels": [heatmap]}, *kept]}


def options(dashboard: Dashboard, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = first(dashboard, kind)["options"]
    return found


def defaults(dashboard: Dashboard, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = first(dashboard, kind)["fieldConfig"]["defaults"]
    return found


BROKEN: dict[str, Change] = {
    "a kind of panel that there isn't": lambda one: first(one, "stat").update(type="stats"),
    "an option of another kind of panel": lambda one: first(one, "heatmap").update(options=options(one, "stat")),
    "an option that there isn't": lambda one: options(one, "timeseries").update(legnd={}),
    "an option without its value": lambda one: options(one, "heatmap").pop("yAxis"),
    "a value that an option doesn't have": lambda one: options(one, "timeseries")["tooltip"].update(mode="many"),
    "a number for a text": lambda one: defaults(one, "stat").update(unit=3),
    "a default that there isn't": lambda one: defaults(one, "stat").update(units="s"),
    "a way to draw that there isn't": lambda one: defaults(one, "timeseries")["custom"].update(lineWidht=1),
    "a mode of thresholds that there isn't": lambda one: defaults(one, "stat")["thresholds"].update(mode="abs"),
    "a panel without a description": lambda one: first(one, "heatmap").pop("description"),
    "a panel with something superfluous": lambda one: first(one, "table").update(color="red"),
    "a query without an id": lambda one: first(one, "table")["targets"][0].pop("refId"),
    "a format that there isn't": lambda one: first(one, "table")["targets"][0].update(format="tabel"),
    "an override that matches nothing": lambda one: first(one, "table")["fieldConfig"]["overrides"][0].pop("matcher"),
    "a transformation without a name": lambda one: first(one, "table")["transformations"][0].pop("id"),
    "a row without its state": lambda one: one["panels"][0].pop("collapsed"),
    "a place on a grid with another dimension": lambda one: first(one, "stat")["gridPos"].update(z=3),
    "a kind of variable that there isn't": lambda one: one["templating"]["list"][1].update(type="queri"),
    "a number that no refreshing has": lambda one: one["templating"]["list"][1].update(refresh=3),
    "a variable with something superfluous": lambda one: one["templating"]["list"][1].update(auto=False),
    "a link without its icon": lambda one: one["links"][0].pop("icon"),
    "a shared crosshair that there isn't": lambda one: one.update(graphTooltip=3),
    "no version of the schema": lambda one: one.pop("schemaVersion"),
    "a dashboard with something superfluous": lambda one: one.update(name="Actions"),
}


def test_whatever_is_broken_is_seen(schema: Path) -> None:
    whole = small()
    broken = {"whole": whole}
    for number, change in enumerate(BROKEN.values()):
        broken[f"broken{number}"] = deepcopy(whole)
        change(broken[f"broken{number}"])
    said = complaints(schema, broken)
    assert said.pop("whole") == []
    assert [name for name, lines in zip(BROKEN, said.values(), strict=True) if not lines] == []
