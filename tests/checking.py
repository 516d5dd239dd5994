"""Checking a text as ``llm-common check`` does, for tests."""

import json
from collections.abc import Mapping
from typing import Any

from llm_common.monitoring.checking.run import check
from llm_common.monitoring.checking.sources import Source
from llm_common.monitoring.checking.vocabulary import Vocabulary
from llm_common.reporting.findings import Finding


def findings(text: str | bytes, known: Vocabulary | None = None, name: str = "") -> list[Finding]:
    """Return what is found in a text: a dashboard, rules or a page."""
    content = text if isinstance(text, bytes) else text.encode()
    return check([Source(name or "<stdin>", path=name, given=content)], known)[0]


def codes(text: str | bytes, known: Vocabulary | None = None, name: str = "") -> list[str]:
    return [one.code for one in findings(text, known, name)]


def rule_file(*expressions: str, **rule: Any) -> str:
    """Return a rule file that records each expression, the last of them with more to the rule."""
    rules: list[Mapping[str, Any]] = [
        {"record": f"own:{number}", "expr": one} for number, one in enumerate(expressions)
    ]
    return json.dumps({"groups": [{"name": "own", "rules": [*rules[:-1], {**rules[-1], **rule}]}]})


def dashboard(*targets: Mapping[str, Any], variables: Any = (), **panel: Any) -> str:
    """Return a dashboard of one panel."""
    panels = [{"title": "Panel", "targets": list(targets), **panel}]
    return json.dumps({"panels": panels, "templating": {"list": list(variables)}}, indent=1)
