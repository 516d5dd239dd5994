"""Whatever comes in, nothing is raised into the application, and every scrape stays valid: a small flood of each kind.

``make torture`` feeds the same floods with a million inputs, guided by coverage.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flooding
from flooding import FLOODS, NUMBERS, ODD
from llm_common import action_tracking, http_tracking
from llm_common.doctor.run import hushed
from llm_common.errors import ConfigurationError
from llm_common.exemplar_labels import exemplar_labels
from llm_common.http_labels import checked_app_type
from llm_common.settings import LONGEST_LABEL, READERS, find_pyproject, resolve
from llm_common.testing import record_metrics
from scraping import Scrape, series


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


@pytest.mark.parametrize("name", READERS)
def test_a_setting_that_raises_whatever_it_is_asked_is_an_error_that_says_what_is_accepted(name: str) -> None:
    for value in (*ODD, *NUMBERS, "x" * 1_000_000):
        try:
            resolve({"app": "shop", name: value}, {})
        except ConfigurationError as problem:
            assert "accepted: " in str(problem)  # noqa: PT017
            assert len(str(problem)) < 500  # noqa: PT017
    (tmp := Path("pyproject.toml")).write_text(f"tool = {'[' * 100_000}")
    with pytest.raises(ConfigurationError, match="can't be read"):
        find_pyproject(tmp.parent.resolve())


@pytest.mark.parametrize("value", [one for one in ODD if not isinstance(one, str)], ids=lambda one: type(one).__name__)
def test_what_is_no_name_and_no_label_is_a_type_error_whatever_it_raises_itself(value: Any) -> None:
    for app_type, resource, method in ((value, "x", "GET"), ("llm", value, "GET"), ("llm", "x", value)):
        with pytest.raises(TypeError, match="must be a string, not "):
            http_tracking(app_type, resource, method, 1, 200, 1.0, 1)
    with pytest.raises(TypeError, match="an action's name must be a string, not "):
        action_tracking(value)
    with pytest.raises(TypeError, match="app_type must be a string, not "):
        checked_app_type(value)
    with pytest.raises((TypeError, ValueError), match="of an exemplar"):
        exemplar_labels({"a": value})


def test_a_measurement_that_is_none_is_left_out_whatever_it_raises_itself() -> None:
    with record_metrics(strict=False) as recorded:
        for value in (*ODD, *NUMBERS):
            http_tracking("llm", "x", "GET", 1, value, 1.0, 1)
            with action_tracking("menu_handler") as tracker:
                tracker.size(value)
                tracker.tokens(value, input=value)
        for value in ODD:
            http_tracking("llm", "x", "GET", value, 200, value, value)
    assert len(recorded.exchanges) == len(recorded.events) == len(ODD) + len(NUMBERS)


def test_a_label_keeps_no_more_of_a_long_text_than_a_page_has_room_for(scrape: Scrape) -> None:
    name = "menu_" * 200_000
    for _ in range(3):
        with action_tracking(name):
            pass
    labels = {"name": name[: LONGEST_LABEL - 1] + "…", "status": "ok", "env": "dev", "app": "shop_bot"}
    assert scrape()[series("genapp_action_count_total", **labels)] == 3


def test_a_long_text_of_a_page_takes_no_time_to_be_hushed() -> None:
    began = time.monotonic()
    for text in ("a" * 300_000, "a:" * 300_000, "é:" * 300_000 + "@", "http:/" * 100_000, "?'" * 300_000):
        hushed(text, {})
    assert time.monotonic() - began < 10


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
