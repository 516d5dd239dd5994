"""A model on loopback, for every framework that asks one."""

from collections.abc import Iterator

import pytest

from llm_common.testing.conformance.http_client import Server, serving
from openai_server import ModelServer


@pytest.fixture
def model() -> ModelServer:
    return ModelServer()


@pytest.fixture
def server(model: ModelServer) -> Iterator[Server]:
    with serving(model) as server:
        yield server
