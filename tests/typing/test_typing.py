"""mypy --strict and pyright on code that uses the facade: what they accept, what they refuse, and where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

HERE = Path(__file__).parent


def mypy(file: Path, cache: Path) -> set[int]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--output=json",
        f"--cache-dir={cache}",
        "--config-file=",
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in {0, 1}, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {entry["line"] for entry in found if entry["severity"] == "error"}


def pyright(file: Path, cache: Path) -> set[int]:
    cache.joinpath("pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "include": [str(file)], "reportMissingTypeStubs": False})
    )
    command = ["basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(cache / "pyrightconfig.json")]
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {entry["range"]["start"]["line"] + 1 for entry in found if entry["severity"] == "error"}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_see_through_the_facade(checker: object, tmp_path: Path) -> None:
    assert callable(checker)
    assert checker(HERE / "accepted.py", tmp_path) == set()


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_refuse_what_is_wrong(checker: object, tmp_path: Path) -> None:
    assert callable(checker)
    file = HERE / "rejected.py"
    marked = {number for number, line in enumerate(file.read_text().splitlines(), 1) if "# REJECTED" in line}
    assert marked
    assert checker(file, tmp_path) == marked
