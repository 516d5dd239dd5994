"""The documentation is executed: each page of README.md, AGENTS.md and docs/ that has Python blocks is one test.

The blocks of a page run in order, in one namespace, so that they stay together whichever worker runs them. A page
begins unconfigured and leaves nothing behind: it has its own default registry, an empty working directory, and none of
the settings of the environment that it runs in.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from opentelemetry.util._once import Once
from prometheus_client import CollectorRegistry
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from llm_common.dispatch import unconfigured

documentation = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "AGENTS.md", "docs/*.md", "plugins/*/README.md"],
    excludes=["docs/*.ru.md"],  # their code is that of the English pages, as tests/docs/test_twins.py shows
)

READERS_NAMES = {"monitoring.md": {"process_data": lambda: ["a row", "a row", "a row"], "result": "an answer"}}
"""For each page, the names that its examples take from the reader's own application."""


@contextmanager
def fresh_process() -> Iterator[None]:
    """Run a block as if in a process of its own."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch, unconfigured():
        for variable in list(os.environ):
            if variable.startswith(("LLM_COMMON_", "OTEL_", "PROMETHEUS_")):
                patch.delenv(variable)
        patch.setenv("no_proxy", "127.0.0.1")
        patch.chdir(directory)
        patch.syspath_prepend(directory)
        modules = set(sys.modules)
        registry = CollectorRegistry()
        patch.setattr("llm_common.backends.prometheus.REGISTRY", registry)
        patch.setattr("llm_common.exposition.REGISTRY", registry)
        patch.setattr("aioprometheus.collectors.REGISTRY.collectors", {})
        patch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", None)
        patch.setattr("opentelemetry.metrics._internal._METER_PROVIDER_SET_ONCE", Once())
        yield
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(directory):
                del sys.modules[name]  # else another page with a file of that name would get this one


class Page(pytest.Item):
    """All examples of one page."""

    def runtest(self) -> None:
        """Evaluate them in order; the first that fails ends the page."""
        document = documentation.parse(self.path)
        document.namespace.update(READERS_NAMES.get(self.path.name, {}), __name__="documentation")
        with fresh_process():
            for example in document.examples():
                if first_line := re.match(r"# (\w+\.py)\n", str(example.parsed)):
                    Path(first_line[1]).write_text(str(example.parsed), encoding="utf-8")  # a later block may import it
                example.evaluate()

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return what the report calls the page."""
        return self.path, 0, self.path.name


class PageFile(pytest.File):
    """A page, as pytest collects it."""

    def collect(self) -> Iterator[Page]:
        """Yield one test, or none where there is nothing to execute."""
        if list(documentation.parse(self.path).examples()):
            yield Page.from_parent(self, name="examples")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PageFile | None:
    """Collect the pages."""
    return PageFile.from_parent(parent, path=file_path) if documentation.should_parse(file_path) else None
