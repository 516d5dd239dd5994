"""Reading JSON and YAML: the places of texts, and files that were made to hurt."""

import json
import time
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checking import codes, dashboard, findings, rule_file
from llm_common.monitoring.checking.documents import LONGEST_YAML, Places, UnreadableError, read_json, read_yaml

pytestmark = pytest.mark.once


def places(text: str) -> list[tuple[int, int]]:
    return [(one.line, one.column) for one in findings(text)]


def test_a_finding_in_json_has_the_place_of_its_word() -> None:
    text = dashboard(
        {"expr": 'sum(genapp_action_count_total{status="failed"})'}, {"expr": "genapp_action_in_progress{pod='ü'}"}
    )
    lines = text.split("\n")
    for (line, column), word in zip(places(text), ("failed", "pod"), strict=True):
        assert lines[line - 1].startswith(word, column - 1)


def test_equal_texts_in_json_have_places_of_their_own() -> None:
    text = dashboard({"expr": "genapp_a"}, {"expr": "genapp_b"}, {"expr": "genapp_a"})
    lines = text.split("\n")
    assert [lines[line - 1].strip() for line, _ in places(text)] == [
        '"expr": "genapp_a"',
        '"expr": "genapp_b"',
        '"expr": "genapp_a"',
    ]


@pytest.mark.parametrize("escapes", [True, False])
def test_what_is_escaped_in_json_counts_as_it_is_written(escapes: bool) -> None:
    text = json.dumps({"panels": [{"targets": [{"expr": 'x{a="ü"} + genapp_a'}]}]}, ensure_ascii=escapes)
    ((_, column),) = places(text)
    assert text[column - 1 :].startswith("genapp_a")


def test_where_json_is_written_in_another_way_the_place_is_where_the_text_begins() -> None:
    text = r'{"panels": [{"targets": [{"expr": "up \u003e genapp_a"}]}]}'
    ((_, column),) = places(text)
    assert text[column - 1 :].startswith(r"up \u003e")


def test_a_finding_in_the_query_of_a_variable_has_its_place() -> None:
    text = dashboard(variables=[{"name": "a", "type": "query", "query": "label_values(genapp_a, b)"}])
    ((line, column),) = places(text)
    assert text.split("\n")[line - 1][column - 1 :].startswith("genapp_a, b)")


def test_a_finding_in_yaml_has_the_place_of_its_word() -> None:
    text = dedent(
        """\
        groups:
          - name: a
            rules:
              - record: plain
                expr: sum(genapp_a)
              - record: quoted
                expr: "sum(genapp_b{a=\\"b\\"})"
              - record: block
                expr: |
                  sum(
                    genapp_c
                  )
              - record: folded
                expr: >-
                  sum(up)
                  + sum(genapp_d)
              - record: long
                expr: sum(up) +
                  sum(genapp_e)
        """
    )
    lines = text.split("\n")
    assert [lines[line - 1][column - 1 :].strip() for line, column in places(text)] == [
        "genapp_a)",
        'genapp_b{a=\\"b\\"})"',
        "genapp_c",
        "sum(up)",
        "sum(up) +",
    ]


@given(st.text())
def test_a_place_is_in_the_document(text: str) -> None:
    document = json.dumps({"a": text, "b": [text]}, ensure_ascii=False)
    found = Places(document)
    for offset in (0, len(text) // 2, len(text)):
        line, column = found.within(found.of(text), text, offset)
        assert 1 <= line <= document.count("\n") + 1
        assert 1 <= column <= len(document) + 1
    assert found.of("none such") == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ', "it isn't JSON: Expecting value"),
        ("", "it isn't JSON: Expecting value"),
        ("[" * 200_000, "it isn't JSON that can be read"),
        ("1" * 10_000, "it isn't JSON that can be read"),
    ],
)
def test_json_that_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        read_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "it isn't YAML: expected the node content"),
        ("a: b: c", "it isn't YAML: mapping values are not allowed here"),
        ("a: *b", "it isn't YAML: found undefined alias"),
        ("\x00", "it isn't YAML: unacceptable character"),
        ("a: !!int x", "it isn't YAML: invalid literal for int"),
        ("? {a: b}\n: c", "it isn't YAML: found unhashable key"),
        ("a: " + "[" * 20_000, "it isn't YAML that can be read: it is nested too deep"),
        ("#" * (LONGEST_YAML + 1), "it has more than 4,000,000 characters"),
    ],
)
def test_yaml_that_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        list(read_yaml(text))


def test_what_cannot_be_read_is_a_finding_at_its_place() -> None:
    (found,) = findings('{"panels": [\n  }', name="a.json")
    assert (found.code, found.line, found.column) == ("MC901", 2, 3)
    (found,) = findings("groups:\n  - a: b: c\n")
    assert (found.code, found.line, found.column) == ("MC901", 2, 9)


def test_tags_make_nothing() -> None:
    assert list(read_yaml("a: !!python/object/apply:os.getcwd []\nb: !own c\nd: 2026-01-01")) == [
        {"a": None, "b": None, "d": "2026-01-01"}
    ]


def test_a_file_may_have_several_documents() -> None:
    assert (
        codes("groups: [{rules: [{expr: genapp_a}]}]\n---\na: b\n---\ngroups: [{rules: [{expr: genapp_b}]}]")
        == ["MC101"] * 2
    )


def test_aliases_that_repeat_themselves_take_no_time() -> None:
    began = time.perf_counter()
    text = "groups:\n- &g\n  rules:\n  - &r {expr: genapp_a}\n" + "  - *r\n" * 3000 + "- *g\n" * 3000
    assert codes(text) == ["MC101"]
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    bomb = f"l0: &l0 [x]\n{levels}groups: [{{rules: [{{expr: genapp_a, annotations: *l29, labels: {{a: *l29}}}}]}}]"
    assert codes(bomb, name="a.yml") == ["MC101"]
    assert time.perf_counter() - began < 20


def test_yaml_that_contains_itself_is_read() -> None:
    assert codes("groups: &g [{rules: &r [{expr: genapp_a}, *r]}, *g]") == ["MC101"]


def test_an_expression_may_be_a_number() -> None:
    assert codes("groups: [{rules: [{record: a, expr: 1}, {record: b, expr: a}]}]") == []
    assert codes(rule_file("1")) == []
