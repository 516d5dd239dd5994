"""A clean environment with the package and one plugin: an application that doesn't change, on another backend."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.once]

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "requirements" / "dev.txt"

APP = """
from llm_common.prometheus import action_tracking, http_tracking, render_metrics

with action_tracking("menu_handler") as tracker:
    tracker.size(3)
http_tracking("llm", "/v1/chat/completions", "POST", 512, 200, 0.8, 64)
print(render_metrics()[0].decode())
"""

OPENTELEMETRY_SETUP = """
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader(scope_info_enabled=False)]))
"""

ACTION = 'app="shop_bot",env="prod",name="menu_handler"'
EXCHANGE = 'app="shop_bot",app_type="llm",env="prod",method="POST",resource="v1/chat/completions",status="200"'
SERIES = [
    f'genapp_action_count_total{{{ACTION},status="ok"}} 1.0',
    f"genapp_action_duration_sec_count{{{ACTION}}} 1.0",
    f"genapp_action_size_total{{{ACTION}}} 3.0",
    f"genapp_http_requests_total{{{EXCHANGE}}} 1.0",
    f"genapp_http_request_duration_sec_sum{{{EXCHANGE}}} 0.8",
]


def wheel(folder: Path, to: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(to), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = to.glob(f"{folder.name.replace('-', '_') if folder != ROOT else 'llm_common'}-*.whl")
    return built


@pytest.mark.parametrize(
    ("plugin", "setup", "needs"),
    [
        ("aioprometheus", "", []),
        ("opentelemetry", OPENTELEMETRY_SETUP, ["opentelemetry-exporter-prometheus"]),
    ],
    ids=["aioprometheus", "opentelemetry"],
)
def test_an_unchanged_application_has_its_series_on_the_backend_that_the_environment_names(
    plugin: str, setup: str, needs: list[str], tmp_path: Path
) -> None:
    wheels = [wheel(folder, tmp_path) for folder in (ROOT, ROOT / "plugins" / f"llm-common-{plugin}")]
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "install", "--quiet", "--constraint", str(CONSTRAINTS), *map(str, wheels), *needs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and os.environ.get("CI") != "true" and "No matching distribution" in installed.stderr:
        pytest.skip(f"the package index can't be reached: {installed.stderr.splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "app.py").write_text(setup + APP)
    outputs = {}
    for backends in ("prometheus", plugin):
        environ = {
            "PATH": os.environ["PATH"],
            "LLM_COMMON_BACKENDS": backends,
            "LLM_COMMON_APP": "shop_bot",
            "LLM_COMMON_ENV": "prod",
        }
        command = [str(python), "-W", "error", "app.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        outputs[backends] = done.stdout.splitlines()
    for name, lines in outputs.items():
        for series in SERIES:
            assert lines.count(series) == 1, f"{name}: {series}"
