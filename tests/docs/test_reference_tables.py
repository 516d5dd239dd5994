"""The tables of the documentation say what the code says."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import llm_common.prometheus
from llm_common import contract, errors, hookspecs, http_labels, integrations
from llm_common.backends import http_series, memory
from llm_common.catalog import (
    BACKEND_ERRORS,
    EXTRA_METRICS,
    HISTOGRAMS,
    MAX_ACTION_NAMES,
    MAX_HTTP_SERIES,
    METRICS,
    OVERFLOW,
)
from llm_common.contract import HttpSeries, Status
from llm_common.http_labels import path_label, template_label
from llm_common.integrations.excluding import DEFAULT_EXCLUDE
from llm_common.plugins import BUILT_IN
from llm_common.settings import ALL, FALSE, READERS, TRUE, environment_variable, resolve
from llm_common.testing.conformance import HttpServerContract
from llm_common.testing.strategies import SUFFIXES

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[2] / "docs"


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def table(page: str, first_column: str, *, nth: int = 0) -> list[list[str]]:
    """Return the cells of the page's nth table whose first column has this title."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |")]
    rows = []
    for line in lines[heads[nth] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def literals(cell: str) -> list[str]:
    """Return what a cell shows as code."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_metrics_page_lists_the_catalogue() -> None:
    documented = [
        (literals(name)[0], kind, unit, literals(labels)) for name, kind, unit, labels in table("metrics.md", "metric")
    ]
    assert documented == [(one.name, one.kind, one.unit, list(one.labels)) for one in METRICS]


def test_the_metrics_page_lists_the_default_buckets() -> None:
    documented = {
        literals(name)[0]: tuple(map(float, bounds.split(","))) for name, bounds in table("metrics.md", "metric", nth=2)
    }
    assert documented == {one.name: one.buckets for one in HISTOGRAMS}


def test_the_metrics_page_lists_the_metrics_beside_the_contract() -> None:
    documented = [
        (literals(key)[0], literals(name)[0], kind, unit, tuple(literals(labels)))
        for key, name, kind, unit, labels in table("metrics.md", "key")
    ]
    every = EXTRA_METRICS.items()
    assert documented == [(key, one.name, one.kind, one.unit, one.labels) for key, one in every]


def test_the_metrics_page_has_the_faults_of_backends() -> None:
    ((name, kind, unit, labels),) = table("metrics.md", "metric", nth=1)
    one = BACKEND_ERRORS
    assert (literals(name), kind, unit, tuple(literals(labels))) == ([one.name], one.kind, one.unit, one.labels)


def test_the_configuration_page_lists_what_switches_them_on() -> None:
    accepted = next(row[2] for row in settings_table() if row[0] == "`extra_metrics`")
    assert tuple(literals(accepted)) == (*EXTRA_METRICS, ALL)


def test_the_metrics_page_names_every_status() -> None:
    values = dict(table("metrics.md", "label"))["`status`"]
    assert literals(values) == [str(status) for status in Status]


def test_the_tracking_page_explains_every_status() -> None:
    assert [literals(name)[0] for name, _ in table("tracking.md", "status")] == [str(status) for status in Status]


def test_the_tracking_page_lists_the_suffixes() -> None:
    assert tuple(literals(suffix)[0] for suffix, _ in table("tracking.md", "suffix")) == SUFFIXES


def test_the_configuration_page_lists_every_setting_with_its_variable() -> None:
    documented = [(literals(name)[0], literals(variable)[0]) for name, variable, *_ in settings_table()]
    assert documented == [(name, environment_variable(name)) for name in READERS]


@pytest.mark.parametrize("name", ["env", "backends", "strict"])
def test_a_documented_default_is_the_one_in_force(name: str) -> None:
    default = next(literals(row[3])[0] for row in settings_table() if literals(row[0]) == [name])
    assert getattr(resolve({name: default}, {}), name) == getattr(resolve({}, {}), name)


@pytest.mark.parametrize("name", ["plugins", "extra_metrics"])
def test_nothing_is_the_documented_default(name: str) -> None:
    default = next(row[3] for row in settings_table() if row[0] == f"`{name}`")
    assert (default, getattr(resolve({}, {}), name)) == ("none", ())


def test_the_limits_are_documented_as_the_default_of_their_setting() -> None:
    default = next(row[3] for row in settings_table() if row[0] == "`max_series`")
    assert default == f"{MAX_ACTION_NAMES:,} and {MAX_HTTP_SERIES:,}"


def test_the_application_falls_back_to_the_documented_variable() -> None:
    (variable,) = literals(next(row[3] for row in settings_table() if row[0] == "`app`"))
    assert resolve({}, {variable: "shop_bot"}).app == "shop_bot"


def test_the_configuration_page_lists_what_strict_accepts() -> None:
    accepted = next(row[2] for row in settings_table() if row[0] == "`strict`")
    assert tuple(literals(accepted)) == TRUE + FALSE


def settings_table() -> list[list[str]]:
    return table("configuration.md", "setting")


def test_the_configuration_page_draws_the_tree_of_errors() -> None:
    assert errors.__doc__ is not None
    tree = [line.strip() for line in errors.__doc__.splitlines() if re.match(r" +(LLM|[├│└])", line)]
    page = [line.strip() for line in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines()]
    assert tree
    assert page[(start := page.index(tree[0])) : start + len(tree)] == tree


def test_the_backends_page_lists_what_the_package_brings() -> None:
    assert {literals(name)[0] for name, _ in table("backends.md", "name")} == set(BUILT_IN)


def test_the_backends_page_names_the_limit_of_the_memory_backend() -> None:
    assert f"latest {memory.LIMIT:,} measurements" in dict(table("backends.md", "name"))["`memory`"]


def test_the_backends_page_lists_every_hook_with_its_arguments() -> None:
    documented = {literals(hook)[0]: tuple(literals(arguments)) for hook, arguments, _ in table("backends.md", "hook")}
    hooks = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("llm_common_")}
    assert documented == {name: hook.__code__.co_varnames[: hook.__code__.co_argcount] for name, hook in hooks.items()}


def test_the_page_on_the_workings_names_the_sizes_of_batches() -> None:
    page = " ".join(text("how-it-works.md").split())
    assert f"holds {contract.FOLD_AT} samples" in page
    assert f"whose list holds {http_series.FOLD_AT}" in page


def test_the_metrics_page_lists_the_labels_of_http() -> None:
    documented = [label for name, _ in table("metrics.md", "label", nth=1) for label in literals(name)]
    assert set(documented) == {label for metric in METRICS for label in metric.labels if "http" in metric.name}


@pytest.mark.parametrize("example", table("http.md", "template"), ids=lambda example: example[0])
def test_the_http_page_shows_what_becomes_of_a_template(example: list[str]) -> None:
    template, resource = (literals(cell)[0] for cell in example)
    assert template_label(template) == resource


@pytest.mark.parametrize("example", table("http.md", "sent to"), ids=lambda example: example[0])
def test_the_http_page_shows_what_becomes_of_a_path(example: list[str]) -> None:
    path, resource = (literals(cell)[0] for cell in example)
    assert path_label(path) == resource


def test_the_http_page_explains_every_status_that_is_no_response_of_an_application() -> None:
    documented = [literal for status, *_ in table("http.md", "status") for literal in literals(status)]
    assert documented == [
        http_labels.UNHANDLED,
        http_labels.CLIENT_GONE,
        http_labels.ERROR,
        http_labels.TIMEOUT,
        http_labels.CANCELLED,
    ]


def test_the_http_page_lists_what_is_not_counted() -> None:
    documented = [path for _, paths in table("http.md", "left out") for path in literals(paths)]
    assert documented == list(DEFAULT_EXCLUDE)


def test_the_http_page_names_every_method_and_the_labels_that_stand_for_others() -> None:
    (methods,) = re.findall(r"### Methods\n\n(.+?)\n\n", text("http.md"), re.DOTALL)
    assert set(literals(methods)) == {*http_labels.METHODS, http_labels.OTHER_METHOD}
    assert f"`{http_labels.UNKNOWN}` is a request that no route matched" in text("http.md")
    assert f"longer than {http_labels.MAX_RESOURCE} characters" in text("http.md")


def test_the_http_page_lists_what_can_be_imported_for_each_framework() -> None:
    names = [name for _, cell in table("http.md", "for") for name in re.findall(r"llm_common\.[\w.]+", cell)]
    for name in names:
        module, _, member = name.rpartition(".")
        assert callable(getattr(import_module(module), member))
    documented = {name.split(".")[2] for name in names if name.startswith("llm_common.integrations.")}
    assert documented == {path.stem for path in integration_files() if COUNTS.search(path.read_text(encoding="utf-8"))}


COUNTS = re.compile(r"^(?:class|def) (?:MetricsMiddleware|metrics_middleware|Tracked\w+|tracked_\w+)\b", re.MULTILINE)
"""The definition of what counts requests, in an integration that does."""


def integration_files() -> list[Path]:
    return [path for folder in integrations.__path__ for path in Path(folder).glob("*.py")]


@pytest.mark.parametrize("page", ["http.md", "metrics.md", "configuration.md"])
def test_a_page_that_speaks_of_limits_names_them(page: str) -> None:
    assert f"{MAX_HTTP_SERIES:,}" in text(page)
    assert f"`{OVERFLOW}`" in text(page)
    assert page == "http.md" or f"{MAX_ACTION_NAMES:,}" in text(page)


def test_an_overflow_series_has_as_many_labels_as_the_http_page_says() -> None:
    assert "in all four labels" in text("http.md")
    assert len(HttpSeries._fields) == 4


def test_the_testing_page_lists_the_routes_of_the_server_contract() -> None:
    assert HttpServerContract.__doc__ is not None
    rows = re.findall(r"^ *``(\w+ /\S*)`` +(.+)$", HttpServerContract.__doc__, re.MULTILINE)
    expected = [(route, re.sub(r":\w+:`(\w+)`", r"`\1`", does.replace("``", "`"))) for route, does in rows]
    assert [(literals(route)[0], does) for route, does in table("testing.md", "route")] == expected


def test_the_page_on_the_older_package_lists_names_that_the_door_has() -> None:
    documented = {literals(name)[0] for name, _ in table("older.md", "name")}
    assert documented <= set(llm_common.prometheus.__all__)
    assert {"http_tracking", *older_names()} <= documented


def older_names() -> set[str]:
    return {name for name in llm_common.prometheus.__all__ if re.match(r"(fastapi|flask|build|is_build)_", name)}
