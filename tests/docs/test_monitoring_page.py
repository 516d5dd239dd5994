"""The page that application teams already have is true, word for word, in either language."""

import asyncio
import inspect
import re
from typing import Any

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser

from llm_common.catalog import METRICS
from llm_common.prometheus import action_tracking, action_tracking_decorator
from llm_common.testing import RecordedMetrics
from llm_common.testing.strategies import SUFFIXES
from pages import ROOT, read

pytestmark = pytest.mark.once

PAGE = ROOT / "docs" / "monitoring.ru.md"
TEXT = read(PAGE)
both = pytest.mark.parametrize("text", [TEXT, read(ROOT / "docs" / "monitoring.md")], ids=["ru", "en"])


@pytest.fixture
def namespace(recorded_metrics: RecordedMetrics) -> dict[str, Any]:
    """What the example defines, once it has run while metrics are recorded."""
    document = Document.parse(str(PAGE), PythonCodeBlockParser())
    document.namespace.update(process_data=lambda: ["a row", "a row", "a row"], result="an answer")
    for example in document.examples():
        example.evaluate()
    return document.namespace


def test_the_context_manager_records_the_size_and_the_declared_failure(
    namespace: dict[str, Any], recorded_metrics: RecordedMetrics
) -> None:
    recorded_metrics.assert_action("data_processing", status="error", size=3)
    recorded_metrics.assert_metric("genapp_action_size_total", 3, name="data_processing")
    recorded_metrics.assert_metric("genapp_action_duration_sec_count", 1, name="data_processing")


def test_the_decorated_coroutine_is_awaited_and_counted(
    namespace: dict[str, Any], recorded_metrics: RecordedMetrics
) -> None:
    recorded_metrics.assert_no_action("myfeature_llm_call")
    assert asyncio.run(namespace["make_llm_request"]()) == "an answer"
    recorded_metrics.assert_action("myfeature_llm_call", status="ok", size=None)


@both
def test_the_page_names_exactly_the_metrics_of_the_catalogue(text: str) -> None:
    assert sorted(re.findall(r"`(genapp_\w+[a-z])`", text)) == sorted(metric.name for metric in METRICS)


@both
def test_the_page_gives_each_metric_the_labels_of_the_catalogue(text: str) -> None:
    lines = re.findall(r"^- (\w+) → (.+)$", text, re.MULTILINE)
    documented = {f"genapp_{name}": tuple(labels.split(", ")) for name, labels in lines}
    assert documented == {metric.name: metric.labels for metric in METRICS}


@both
def test_the_page_names_the_suffixes_of_actions(text: str) -> None:
    assert set(re.findall(r'(?:суффикс|suffix) "(\w+)"', text)) == set(SUFFIXES)


@both
@pytest.mark.parametrize("function", [action_tracking, action_tracking_decorator])
def test_the_page_shows_the_parameters_that_a_function_has(function: Any, text: str) -> None:
    parameters = ", ".join(f"{one.name}: {one.annotation.__name__}" for one in signature_of(function))
    assert f"#### {function.__name__}({parameters})" in text


def signature_of(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())
