import pytest

from llm_common.exemplar_labels import MOST, exemplar_labels


def test_labels_of_a_trace_are_accepted() -> None:
    labels = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
    assert exemplar_labels(labels) == labels


def test_text_that_no_exposition_can_carry_is_mended() -> None:
    assert exemplar_labels({"trace_id": "a\ud800"}) == {"trace_id": "a\ufffd"}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["trace_id"], "accepted: a mapping of names to texts"),
        ("trace_id", "accepted: a mapping of names to texts"),
        ({"trace-id": "1"}, "'trace-id': '1' is no label"),
        ({"": "1"}, "'': '1' is no label"),
        ({1: "1"}, "1: '1' is no label"),
        ({"trace_id": 1}, "'trace_id': 1 is no label"),
        ({"trace_id": "1" * 121}, "have 129 characters together; accepted: up to 128"),
    ],
)
def test_what_would_spoil_a_scrape_is_named(labels: object, problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        exemplar_labels(labels)


def test_the_longest_labels_are_accepted() -> None:
    assert exemplar_labels({"a": "1" * (MOST - 1)})
