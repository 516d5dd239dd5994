from hypothesis import given
from hypothesis import strategies as st

from llm_common.demo.words import keywords


def test_words_without_meaning_are_left_out() -> None:
    assert keywords("How do I cancel the order?") == ["cancel", "order"]


def test_singular_and_plural_are_the_same_word() -> None:
    assert keywords("lamps, lamp; glass gas") == ["lamp", "lamp", "glass", "gas"]


@given(st.text())
def test_keywords_of_keywords_are_never_more(text: str) -> None:
    once = keywords(text)
    assert len(keywords(" ".join(once))) <= len(once)
