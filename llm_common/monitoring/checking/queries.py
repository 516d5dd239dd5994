"""The questions that a dashboard or a rule file asks, each with what it is called and where it stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_common.monitoring.checking.text import Variable


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of an asset, or one label of what it returns that a text names."""

    expression: str
    """As the asset has it, with Grafana's variables."""
    subject: str
    """What people call it: the panel, the variable, the rule."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels of the result that texts name, each with the text."""
    selected: str = ""
    """The label whose values are asked for, of a variable."""
    record: str = ""
    """What the result is recorded as."""
    added: tuple[str, ...] = ()
    """Labels that a rule adds to what it records."""
    written: str = ""
    """The text of the document that the expression is in, where it is only a part of it."""

    @property
    def source(self) -> str:
        """The text of the document that has the expression."""
        return self.written or self.expression


@dataclass(frozen=True, slots=True)
class Asset:
    """A dashboard or a rule file."""

    queries: tuple[Query, ...]
    variables: Mapping[str, Variable]


OTHER_SOURCES = frozenset(
    {"loki", "elasticsearch", "influxdb", "tempo", "jaeger", "mysql", "postgres", "grafana", "cloudwatch"}
)
"""Data sources whose questions are in another language. What names none is taken for a question to Prometheus."""

LEGEND_LABEL = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
FIELD_LABEL = re.compile(r"\$\{__(?:field|series)\.labels(?:\.(\w+)|\[[\"'](\w+)[\"']\])(?::\w+)?\}")
TEMPLATE_LABEL = re.compile(r"(?:\$labels|\.Labels)\.([A-Za-z_]\w*)")


GUARD = re.compile(r"\{\{-?\s*(?:with|if|else if|else with)\s[^}]*")
"""Where a template asks whether there is a label: it may as well be missing."""


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text below a value."""
    pending, seen = [value], set()
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list) and id(one) not in seen:
            seen.add(id(one))
            pending += one.values() if isinstance(one, dict) else one


def dictionaries(value: Any) -> list[dict[Any, Any]]:
    """Return the dictionaries in a list; none where it isn't a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def dashboard(document: Any) -> Asset | None:
    """Return what a document asks that is a dashboard of Grafana, or ``None`` where it is none."""
    if isinstance(document, dict) and isinstance(document.get("dashboard"), dict):
        document = document["dashboard"]  # as Grafana's API has it
    if not isinstance(document, dict) or not any(isinstance(document.get(key), list) for key in ("panels", "rows")):
        return None
    templating = document.get("templating")
    listed = dictionaries(templating.get("list")) if isinstance(templating, dict) else []
    queries: list[Query] = []
    annotations = document.get("annotations")
    for one in dictionaries(annotations.get("list")) if isinstance(annotations, dict) else []:
        queries += asked(one, [one], f"annotation {one.get('name', '')!r}")
        if isinstance(one.get("target"), dict):
            queries += asked(one, [one["target"]], f"annotation {one.get('name', '')!r}")
    for panel in panels(document):
        queries += asked(panel, dictionaries(panel.get("targets")), f"panel {panel.get('title', '')!r}")
    for one in listed:
        queries += asked_by_variable(one)
    return Asset(tuple(queries), {str(one.get("name", "")): variable(one) for one in listed})


def panels(document: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Yield the panels of a dashboard, those in rows as well, in the order of the document."""
    pending = [document]
    seen: set[int] = set()
    while pending:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if "targets" in one:
            yield one
        below = [inner for key in ("panels", "rows") for inner in dictionaries(one.get(key))]
        pending = below + pending


def asks_prometheus(*holders: dict[Any, Any]) -> bool:
    """Return whether what a panel or target asks goes to Prometheus; the last that names a source decides."""
    kinds = [source.get("type") if isinstance(source := one.get("datasource"), dict) else None for one in holders]
    named = [kind for kind in kinds if isinstance(kind, str)]
    return not named or named[-1] not in OTHER_SOURCES


def asked(holder: dict[Any, Any], targets: list[dict[Any, Any]], subject: str) -> Iterator[Query]:
    """Yield the expressions of a panel or an annotation."""
    used = tuple((label, text) for text in texts_in(holder) for label in named(FIELD_LABEL, text))
    for target in targets:
        expression = target.get("expr")
        if isinstance(expression, str) and expression.strip() and asks_prometheus(holder, target):
            legend = target.get("legendFormat")
            labels = tuple((label, legend) for label in named(LEGEND_LABEL, legend)) if isinstance(legend, str) else ()
            yield Query(expression, subject, labels + used)


def named(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the labels that a text names."""
    return [next(filter(None, found.groups())) for found in pattern.finditer(text)]


def expected(text: str) -> list[str]:
    """Return the labels that a template takes for granted."""
    guarded = {label for guard in GUARD.findall(text) for label in named(TEMPLATE_LABEL, guard)}
    return [label for label in named(TEMPLATE_LABEL, text) if label not in guarded]


def asked_by_variable(one: dict[Any, Any]) -> Iterator[Query]:
    """Yield what a variable's query asks: for values of a label, or for the result of an expression."""
    query = one.get("query")
    text = query.get("query") if isinstance(query, dict) else query
    if one.get("type") != "query" or not isinstance(text, str) or not asks_prometheus(one):
        return
    subject = f"variable {one.get('name', '')!r}"
    function, _, rest = text.strip().partition("(")
    inner = rest[:-1].strip() if rest.endswith(")") else ""
    if function == "query_result" and inner:
        yield Query(inner, subject, written=text)
    elif function == "label_values" and inner:
        selector, _, label = inner.rpartition(",")
        yield Query(selector.strip(), subject, selected=label.strip(), written=text)
    elif function not in {"label_names", "metrics"} and text.strip():
        yield Query(text, subject)


def variable(one: dict[Any, Any]) -> Variable:
    """Return what a dashboard says of the values of one of its variables."""
    kind, query = one.get("type"), one.get("query")
    if kind == "interval":
        return Variable(duration=True)
    if kind not in {"custom", "constant"} or not isinstance(query, str):
        return Variable()
    values = [query] if kind == "constant" else [part.rpartition(" : ")[2].strip() for part in query.split(",")]
    return Variable(tuple(filter(None, values)) or None)


def rules(document: Any) -> Asset | None:
    """Return what a document asks that is a rule file of Prometheus, or ``None`` where it is none."""
    if isinstance(document, dict) and isinstance(document.get("spec"), dict):
        document = document["spec"]  # a PrometheusRule of Kubernetes
    if not isinstance(document, dict) or not isinstance(document.get("groups"), list):
        return None
    queries: list[Query] = []
    seen: set[int] = set()  # an alias may repeat a rule ten thousand times
    for group in dictionaries(document["groups"]):
        for one in [] if id(group) in seen else dictionaries(group.get("rules")):
            expression = one.get("expr")
            if id(one) not in seen and isinstance(expression, str | int | float):
                queries.append(asked_by_rule(one, str(expression) if not isinstance(expression, str) else expression))
            seen.add(id(one))
        seen.add(id(group))
    return Asset(tuple(queries), {})


def asked_by_rule(one: dict[Any, Any], expression: str) -> Query:
    """Return the expression of a rule, with the labels that its annotations name."""
    record = one.get("record")
    subject = f"rule {record!s}" if isinstance(record, str) else f"alert {one.get('alert', '')!s}"
    added = one.get("labels")
    labels = tuple(
        (label, text)
        for holder in (one.get("annotations"), added)
        for text in texts_in(holder)
        for label in expected(text)
    )
    return Query(
        expression,
        subject,
        labels,
        record=record if isinstance(record, str) else "",
        added=tuple(map(str, added)) if isinstance(added, dict) else (),
    )
