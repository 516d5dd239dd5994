"""Whole applications in their own process: switching by environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

APP = """
import sys
from llm_common.prometheus import action_tracking
with action_tracking("menu_handler") as tracker:
    tracker.size(1)
print("the application ran")
if "prometheus_client" in sys.modules:
    from llm_common.prometheus import render_metrics
    sys.stdout.write(render_metrics()[0].decode())
"""


def run_app(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    (directory / "shop.py").write_text(APP)
    command = [sys.executable, "shop.py"]
    full = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, env=full, timeout=60)


def test_without_any_configuration_the_documented_series_are_on_the_scrape(tmp_path: Path) -> None:
    done = run_app(tmp_path)
    assert done.returncode == 0
    assert 'genapp_action_count_total{app="shop",env="dev",name="menu_handler",status="ok"} 1.0' in done.stdout
    assert done.stderr == ""


def test_noop_records_nothing_and_does_not_even_import_prometheus_client(tmp_path: Path) -> None:
    done = run_app(tmp_path, LLM_COMMON_BACKENDS="noop")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the application ran\n", "")


@pytest.mark.parametrize("backends", ["nonsense", ","])
def test_a_wrong_backend_is_one_error_and_the_application_runs_on(tmp_path: Path, backends: str) -> None:
    done = run_app(tmp_path, LLM_COMMON_BACKENDS=backends)
    assert (done.returncode, done.stdout) == (0, "the application ran\n")
    assert done.stderr.count("\n") == 1
    assert "LLM_COMMON_BACKENDS" in done.stderr
    assert "noop" in done.stderr
    assert done.stderr.startswith("llm_common: ")
    strict = run_app(tmp_path, LLM_COMMON_BACKENDS=backends, LLM_COMMON_STRICT="1")
    assert strict.returncode == 1
    assert "ran" not in strict.stdout


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert "genapp_action_count_total" in run_app(tmp_path, LLM_COMMON_BACKENDS="").stdout


def test_a_pyproject_beside_the_application_configures_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.llm_common]\napp = "from_file"\nenv = "preprod"\n')
    assert '{app="from_file",env="preprod",' in run_app(tmp_path).stdout
    assert '{app="from_env",env="preprod",' in run_app(tmp_path, LLM_COMMON_APP="from_env").stdout
