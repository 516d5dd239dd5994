"""What the wheel installs: everything that the package needs at run time, and nothing else."""

from importlib.metadata import distribution, entry_points

FILES = {str(path) for path in distribution("llm_common").files or ()}


def test_the_wheel_has_the_marker_of_typed_packages_and_the_demo_its_articles() -> None:
    assert "llm_common/py.typed" in FILES
    assert sum(path.startswith("llm_common/demo/articles/") for path in FILES) >= 6


def test_the_wheel_has_nothing_but_the_package_and_its_metadata() -> None:
    tops = {path.split("/")[0] for path in FILES if "__pycache__" not in path}
    assert {top for top in tops if not top.endswith(".dist-info")} <= {"llm_common", ".."}  # .. is the script


def test_the_metadata_say_what_it_is_and_what_it_needs() -> None:
    metadata = distribution("llm_common").metadata
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert {"cli", "demo", "docs"} <= set(metadata.get_all("Provides-Extra") or ())


def test_the_command_and_the_pytest_plugin_are_registered() -> None:
    (script,) = entry_points(group="console_scripts", name="llm-common")
    (plugin,) = entry_points(group="pytest11", name="llm_common")
    assert callable(script.load())
    assert plugin.value == "llm_common.testing.plugin"
