"""Whatever comes in, nothing is raised into the application, and every scrape stays valid: a small flood of each kind.

``make torture`` feeds the same floods with a million inputs, guided by coverage.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flooding
from flooding import FLOODS


@pytest.fixture(autouse=True)
def messages_are_written() -> Iterator[None]:
    logger = logging.getLogger("llm_common")
    before = logger.handlers[:], logger.propagate
    flooding.quiet()
    yield
    logger.handlers[:], logger.propagate = before


@pytest.fixture
def promtool() -> bool:
    if os.environ.get("CI") and not shutil.which("promtool"):
        pytest.fail("promtool is not installed; it comes with the Debian package prometheus")
    return bool(shutil.which("promtool"))


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_breaks_nothing(name: str, promtool: bool) -> None:
    flood = FLOODS[name]()

    @settings(max_examples=25)
    @given(st.lists(st.binary(min_size=20, max_size=300), min_size=1, max_size=10))
    def run(inputs: list[bytes]) -> None:
        flood.begin()
        for data in inputs:
            flood.take(data)
        flood.check()

    try:
        run()
        flood.check(lint=promtool)
    finally:
        flood.close()


def test_a_flood_without_atheris_says_what_to_install() -> None:
    script = Path(flooding.__file__)
    code = f"import runpy, sys; sys.modules['atheris'] = None; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "a flood needs atheris, which guides it; install it with: pip install -r requirements/dev.txt\n"
    )


@pytest.mark.once
def test_a_flood_that_is_guided_prints_its_figures() -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, flooding.__file__, "exchanges", "--inputs", "300", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "300 inputs, crashes 0, scrapes checked 2 (1 by promtool too)" in done.stdout
