"""Suites of tests that others' integrations and backends inherit, and so have to pass. They need pytest."""

from llm_common.testing.conformance.http_client import HttpClientContract
from llm_common.testing.conformance.http_server import HttpServerContract

__all__ = ["HttpClientContract", "HttpServerContract"]
