from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_common.demo.knowledge import ARTICLES, Index, Knowledge, Passage, UnknownArticleError
from llm_common.prometheus import action_tracking
from llm_common.testing import RecordedMetrics

WORDS = st.text("abcdefgh", min_size=3, max_size=6)
PASSAGES = st.lists(st.builds(Passage, WORDS, st.lists(WORDS, min_size=1, max_size=8).map(" ".join)), max_size=8)


@pytest.fixture(scope="module")
def shop() -> Knowledge:
    knowledge = Knowledge()
    knowledge.reindex()
    return knowledge


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How long does standard delivery take?", "Delivery"),
        ("When do I get my refund?", "Returns and refunds"),
        ("Why was my card declined?", "Payment"),
        ("Which bulbs fit your lamps?", "Lamps and light bulbs"),
    ],
)
def test_a_question_finds_the_article_that_answers_it(shop: Knowledge, question: str, title: str) -> None:
    assert shop.search(question)[0].title == title


def test_a_question_about_nothing_in_the_articles_finds_nothing(shop: Knowledge) -> None:
    assert shop.search("Do you keep penguins?") == []


def test_there_are_as_many_articles_as_it_says_of_several_passages(shop: Knowledge) -> None:
    assert len(shop.titles) == ARTICLES
    assert len(shop.index.passages) > len(shop.titles)


def test_an_article_is_found_by_its_place_among_the_titles(tmp_path: Path) -> None:
    (tmp_path / "tea.txt").write_text("Tea\n\nWe sell tea.\n\nIt is green.\n")
    (tmp_path / "cups.txt").write_text("Cups\n\nWe sell cups.\n")
    knowledge = Knowledge(tmp_path)
    knowledge.reindex()
    assert knowledge.article(1) == ("Cups", "We sell cups.")
    assert knowledge.article(2) == ("Tea", "We sell tea.\n\nIt is green.")


@pytest.mark.parametrize("number", [-1, 0, ARTICLES + 1])
def test_an_unknown_article_is_an_error_that_names_it(shop: Knowledge, number: int) -> None:
    with pytest.raises(UnknownArticleError, match=f"no article {number}"):
        shop.article(number)


def test_before_the_first_indexing_nothing_is_found() -> None:
    assert Knowledge().search("delivery") == []


def test_indexing_reads_text_files_alone_and_adds_their_bytes_to_the_action(
    tmp_path: Path, recorded_metrics: RecordedMetrics
) -> None:
    (tmp_path / "tea.txt").write_bytes("Thé\n\nWe sell tea.\n".encode())
    (tmp_path / "tea.txt.bak").write_bytes(b"Coffee\n\nWe sell coffee.\n")
    knowledge = Knowledge(tmp_path)
    with action_tracking("reindex_task"):
        knowledge.reindex()
    assert knowledge.titles == ["Thé"]
    recorded_metrics.assert_action("reindex_task", size=19)


def test_a_new_index_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "tea.txt"
    knowledge = Knowledge(tmp_path)
    for goods in ("tea", "coffee"):
        file.write_text(f"Goods\n\nWe sell {goods}.")
        knowledge.reindex()
    assert (knowledge.search("tea"), knowledge.search("coffee")) == ([], [Passage("Goods", "We sell coffee.")])


@given(PASSAGES, WORDS)
def test_search_finds_just_the_passages_that_have_the_word(passages: list[Passage], word: str) -> None:
    found = Index(passages).search(word, limit=len(passages))
    assert sorted(found, key=repr) == sorted(
        (one for one in passages if word in one.title.split() + one.text.split()), key=repr
    )


@given(PASSAGES, st.lists(WORDS).map(" ".join), st.integers(0, 4))
def test_search_never_returns_more_than_was_asked_for(passages: list[Passage], query: str, limit: int) -> None:
    assert len(Index(passages).search(query, limit)) <= limit
