import subprocess
import sys

import pytest

PASSING = """
from llm_common import action_tracking
def test_it(recorded_metrics):
    with action_tracking("menu_handler"):
        pass
    recorded_metrics.assert_action("menu_handler")
"""


def test_the_fixture_is_there_once_the_package_is_installed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSING)
    pytester.runpytest().assert_outcomes(passed=1)


def test_the_report_of_a_failed_test_shows_what_was_recorded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSING + "    assert False\n")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Recorded metrics*", "  menu_handler  ok         once"])


def test_a_failed_assertion_points_at_the_test_and_not_into_the_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSING + "    recorded_metrics.assert_action('order_handler')\n")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*AssertionError: expected the action 'order_handler' once; recorded not at all"])
    result.stdout.no_fnmatch_line("*recorder.py:*")


def test_it_works_under_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PASSING + "".join(PASSING.replace("test_it", f"test_{n}") for n in range(6)))
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=7)


def test_the_plugin_costs_nothing_heavy_at_start_up() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import llm_common.testing.plugin; "
        "print(sorted(name for name in set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    for heavy in (
        "prometheus_client",
        "hypothesis",
        "importlib.metadata",
        "asyncio",
        "tomllib",
        "llm_common.exposition",
    ):
        assert f"'{heavy}" not in out
