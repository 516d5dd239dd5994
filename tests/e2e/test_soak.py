"""An hour's worth of mixed load, compressed: memory, threads, descriptors and files stay what they were.

Each simulated second has a hundred actions with failures and sizes, also in threads that come and go, ten HTTP
exchanges, and streamed LLM calls with tokens in tasks, some of which are cancelled; every 15 seconds a scrape, every 20
a child process, every 60 another configuration. ``SOAK=3600`` simulates the whole hour, instead of two minutes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import soaking
from servers import unmeasured

pytestmark = pytest.mark.e2e

SOAK = int(os.environ.get("SOAK", "130"))
WARM = max(SOAK // 10, 65)
"""When everything has happened once, also another configuration."""


@pytest.mark.parametrize("several", [False, True], ids=["one-process", "several"])
def test_nothing_grows(several: bool, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    environ = {**unmeasured(), **({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")} if several else {})}
    command = [sys.executable, "-m", "soaking", str(SOAK), str(WARM)]
    folder = Path(soaking.__file__).parent
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    warm, end = json.loads(done.stdout)
    where = "files" if several else "one process"
    print(f"\nsoak, {where}: after {WARM} s and after {SOAK} s, as it would have been, with every action counted")
    for what, before in warm.items():
        print(f"  {what}: {before:,} and {end[what]:,}")
    for what in ("threads", "descriptors", "files"):
        assert end[what] == warm[what], what
    assert end["objects"] <= warm["objects"] + 100
    assert end["traced KiB"] <= warm["traced KiB"] + 128  # CPython remembers which attributes were asked for
    assert end["resident KiB"] <= warm["resident KiB"] + 4096
