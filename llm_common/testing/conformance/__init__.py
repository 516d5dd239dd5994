"""Suites of tests that others' integrations and backends inherit, and so have to pass.

They need pytest; the one for backends needs hypothesis too. ``pip install 'llm_common[conformance]'`` brings both.
"""

from llm_common.testing.conformance.backend import BackendContract
from llm_common.testing.conformance.http_client import HttpClientContract
from llm_common.testing.conformance.http_server import HttpServerContract

__all__ = ["BackendContract", "HttpClientContract", "HttpServerContract"]
