"""The direction of imports, the completeness of what is public, and the cost of importing it."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import llm_common
from llm_common import hookspecs

FLOORS = [
    ["catalog", "contract", "ending", "errors", "action_names"],
    ["settings", "hookspecs", "tracker", "http_labels"],
    ["exemplar_labels"],
    ["plugins", "bound", "health", "series_limit"],
    ["hook_objects"],
    ["pipeline"],
    ["dispatch"],
    ["tracking", "backends", "current", "http_exchange"],
    ["decorator"],
    ["__init__", "exposition", "older"],
    ["metrics_server"],
    ["integrations"],
    ["prometheus"],
    ["reporting"],
    ["lint"],
    ["monitoring"],
    ["doctor"],
    ["testing"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
"""From the ground up. A module imports only from floors below its own, or from its own package."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
ROOT = Path(llm_common.__file__).parent


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(ROOT.rglob("*.py"))
    ]


def imported(module: str) -> set[str]:
    """Return the top-level parts of this package that ``module`` imports at run time."""
    path = ROOT.joinpath(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "llm_common":
            found |= {alias.name if alias.name in FLOOR else "__init__" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llm_common."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("llm_common.")}
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_downward(module: str) -> None:
    own = module.split(".", maxsplit=1)[0]
    assert own in FLOOR, f"give {own} its floor"
    for other in imported(module) - {own}:
        assert FLOOR[other] < FLOOR[own], f"{module} imports {other}, which stands no lower"


@pytest.mark.parametrize("module", modules())
def test_every_module_and_public_name_has_a_docstring(module: str) -> None:
    if module.endswith("__main__"):
        return  # importing it would run it
    loaded = importlib.import_module("llm_common" if module == "__init__" else f"llm_common.{module}")
    assert loaded.__doc__
    for name, value in vars(loaded).items():
        public = not name.startswith("_") and getattr(value, "__module__", None) == loaded.__name__
        if public and (inspect.isclass(value) or inspect.isfunction(value)):
            assert value.__doc__, f"{module}.{name} has no docstring"


def test_what_the_package_exports_exists_and_is_the_same_through_both_doors() -> None:
    import llm_common.prometheus as door

    for name in llm_common.__all__:
        assert getattr(llm_common, name)
        if name in door.__all__:
            assert getattr(door, name) is getattr(llm_common, name)


def test_every_hook_is_prefixed_typed_and_says_when_it_is_called() -> None:
    hooks = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "llm_common_spec")}
    assert len(hooks) == 8
    for name, hook in hooks.items():
        assert name.startswith("llm_common_")
        assert "alled" in (hook.__doc__ or "")
        annotations = inspect.get_annotations(hook)
        assert set(annotations) == {*inspect.signature(hook).parameters, "return"}


def test_the_core_depends_on_pluggy_and_prometheus_client_alone() -> None:
    core = [entry for entry in requires("llm_common") or [] if "extra ==" not in entry]
    assert sorted(entry.split(">")[0] for entry in core) == ["pluggy", "prometheus-client"]


def test_importing_the_door_loads_no_backend_and_reads_no_environment() -> None:
    code = (
        "import sys, os\n"
        "class Watched(dict):\n"
        "    def get(self, key, default=None):\n"
        "        assert not key.startswith('LLM_COMMON'), key\n"
        "        return super().get(key, default)\n"
        "os.environ = Watched(os.environ)\n"
        "import llm_common.prometheus\n"
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'llm_common.backends.'))])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


@pytest.mark.once
def test_every_module_can_be_imported_first() -> None:
    names = [one.name for one in pkgutil.walk_packages(llm_common.__path__, "llm_common.")]
    assert "llm_common.tracking" in names
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [one for one in sys.modules if one.startswith('llm_common')]: del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    chosen = [name for name in names if not name.endswith("__main__")]
    subprocess.run([sys.executable, "-c", code, *chosen], check=True, timeout=120)
