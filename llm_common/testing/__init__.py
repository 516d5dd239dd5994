"""Asserting metrics in tests: the fixture ``recorded_metrics``, or :func:`record_metrics` in code.

Importing this imports neither pytest nor hypothesis; strategies for property tests are in
:mod:`llm_common.testing.strategies`.
"""

from llm_common.contract import ActionEvent, HttpExchange
from llm_common.testing.recorder import RecordedMetrics, record_metrics

__all__ = ["ActionEvent", "HttpExchange", "RecordedMetrics", "record_metrics"]
