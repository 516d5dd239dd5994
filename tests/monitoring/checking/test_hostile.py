"""Whatever a file has in it, the check reports; it never raises."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checking import findings
from llm_common.catalog import METRICS
from llm_common.monitoring.checking.rules import RULES, counted, histogram

pytestmark = pytest.mark.once

KEYS = st.sampled_from(
    [
        "panels",
        "rows",
        "targets",
        "expr",
        "legendFormat",
        "datasource",
        "type",
        "title",
        "templating",
        "list",
        "name",
        "query",
        "annotations",
        "target",
        "groups",
        "rules",
        "record",
        "alert",
        "labels",
        "links",
        "url",
        "spec",
        "dashboard",
        "definition",
        "options",
        "current",
    ]
)
WORDS = st.sampled_from(
    [
        *(metric.name for metric in METRICS),
        *[
            "sum",
            "rate",
            "topk",
            "by",
            "without",
            "on",
            "ignoring",
            "group_left",
            "and",
            "or",
            "unless",
            "offset",
            "bool",
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            ",",
            "=",
            "=~",
            "!=",
            "!~",
            "5m",
            "1e9",
        ],
        *[
            '"ok"',
            '"$app"',
            "status",
            "name",
            "le",
            "up",
            "+",
            "/",
            ">",
            "@",
            "label_replace",
            "histogram_quantile",
            "absent",
            "$__interval",
            "[[x]]",
            "#",
            "\n",
        ],
    ]
)
EXPRESSIONS = st.lists(WORDS, max_size=12).map(" ".join)
TEXTS = EXPRESSIONS | st.sampled_from(["prometheus", "custom", "query", "label_values(up, job)", "{{app}}"]) | st.text()
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "panels": st.lists(
            VALUES | st.fixed_dictionaries({"targets": st.lists(st.fixed_dictionaries({"expr": EXPRESSIONS}))})
        )
    },
    optional={"templating": VALUES, "annotations": VALUES, "rows": VALUES},
) | st.fixed_dictionaries(
    {
        "groups": st.lists(
            VALUES
            | st.fixed_dictionaries({"rules": st.lists(st.fixed_dictionaries({"expr": EXPRESSIONS, "record": TEXTS}))})
        )
    }
)


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Keep what the parser writes where it gives up."""


QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)


@QUIET
@given(DOCUMENTS, st.booleans())
def test_documents_of_any_shape(document: object, escapes: bool) -> None:
    for one in findings(json.dumps(document, ensure_ascii=escapes).encode("utf-8", "surrogatepass"), name="a.json"):
        assert one.code in RULES
        assert one.line >= 1
        assert one.column >= 1
        assert 0 <= one.offset <= len(one.excerpt)


@QUIET
@given(st.binary() | st.text().map(str.encode), st.sampled_from(["", "a.json", "a.yml", "a.txt"]))
def test_bytes_of_any_kind(content: bytes, name: str) -> None:
    assert all(one.code in RULES for one in findings(content, name=name))


@QUIET
@given(
    st.lists(
        st.sampled_from(
            [
                "groups:",
                "|-",
                "-",
                "rules:",
                "expr:",
                "record:",
                "&a",
                "*a",
                "[",
                "]",
                "{",
                "}",
                "!",
                "!!map",
                "1",
                "\n",
                "\n",
                "",
                "\t",
                "'",
                '"',
                ":",
                "#",
                "a",
                "---",
            ]
        )
    )
)
def test_yaml_of_any_shape(words: list[str]) -> None:
    assert all(one.code in RULES for one in findings(" ".join(words), name="a.yml"))


PAGE = counted("1.0") + histogram("genapp_action_first_item_sec", 'name="a_task",env="dev",app="b"') + "# EOF\n"


@QUIET
@given(st.integers(0, len(PAGE)), st.integers(0, 5), st.text(alphabet='a{}"=,\\\n# 1.eE+-NIinf\tétotal_', max_size=4))
def test_pages_with_any_mistake(at: int, cut: int, added: str) -> None:
    assert all(one.code in RULES for one in findings(PAGE[:at] + added + PAGE[at + cut :], name="page.txt"))
