"""The pytest plugin: the fixture ``recorded_metrics``, and what it recorded in the report of a failed test.

pytest imports this at every start, so nothing heavy comes with it: no prometheus_client, no hypothesis.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llm_common.testing import RecordedMetrics

_recorded: "pytest.StashKey[RecordedMetrics]" = pytest.StashKey()


@pytest.fixture
def recorded_metrics(request: pytest.FixtureRequest) -> "Iterator[RecordedMetrics]":
    """Record every action for the length of the test: ``recorded_metrics.assert_action("menu_handler")``."""
    from llm_common.testing import record_metrics

    with record_metrics() as recorded:
        request.node.stash[_recorded] = recorded
        yield recorded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what was recorded to the report of a failed test."""
    report = yield
    recorded = item.stash.get(_recorded, None)
    if recorded is not None and report.failed:
        report.sections.append(("Recorded metrics", recorded.report()))
    return report
