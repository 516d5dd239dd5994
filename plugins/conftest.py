"""Shared set-up: each test starts unconfigured, without the environment's own settings."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_common.dispatch import unconfigured

PREFIXES = ("LLM_COMMON_", "OTEL_", "PROMETHEUS_")


@pytest.fixture(autouse=True)
def clean_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let a test begin as a process does in which nothing was configured."""
    for variable in [name for name in os.environ if name.startswith(PREFIXES)]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    with unconfigured():
        yield
