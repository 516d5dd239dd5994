"""The tables of the documentation say what the code says."""

import re
from pathlib import Path

import pytest

from llm_common import contract, errors, hookspecs
from llm_common.backends import memory
from llm_common.catalog import METRICS
from llm_common.contract import Status
from llm_common.plugins import BUILT_IN
from llm_common.settings import FALSE, READERS, TRUE, environment_variable, resolve
from llm_common.testing.strategies import SUFFIXES

DOCS = Path(__file__).parents[2] / "docs"


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
        literals(name)[0]: tuple(map(float, bounds.split(","))) for name, bounds in table("metrics.md", "metric", nth=1)
    }
    assert documented == {one.name: one.buckets for one in METRICS if one.buckets}


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


def test_no_plugin_is_the_documented_default() -> None:
    default = next(row[3] for row in settings_table() if row[0] == "`plugins`")
    assert (default, resolve({}, {}).plugins) == ("none", ())


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


def test_the_page_on_the_workings_names_the_size_of_a_batch() -> None:
    assert f"holds {contract.FOLD_AT} samples" in (DOCS / "how-it-works.md").read_text(encoding="utf-8")
