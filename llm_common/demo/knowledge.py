"""What the bot knows: the shop's support articles, cut into passages and indexed for search.

The ranking is Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), as in most search
engines, with its usual parameters.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from llm_common.demo.words import keywords
from llm_common.prometheus import current_action

SATURATION = 1.5
"""BM25's k1: how soon further repetitions of a word stop to matter."""
LENGTH_WEIGHT = 0.75
"""BM25's b: how much long passages are marked down, from 0 to 1."""

ARTICLES = 8
"""How many articles come with the demo."""


class UnknownArticleError(LookupError):
    """There is no article of that number."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One paragraph of an article."""

    title: str
    text: str


class Index:
    """An inverted index over passages; never changed once it is built."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        counts = [Counter(keywords(f"{passage.title} {passage.text}")) for passage in self.passages]
        words = sum(count.total() for count in counts)
        self._lengths = [count.total() * len(counts) / words for count in counts]  # 1 is the average
        self._occurrences: dict[str, dict[int, int]] = defaultdict(dict)
        for number, count in enumerate(counts):
            for word, times in count.items():
                self._occurrences[word][number] = times

    def search(self, query: str, limit: int = 3) -> list[Passage]:
        """Return at most ``limit`` passages that share words with ``query``, the best first."""
        scores: dict[int, float] = defaultdict(float)
        total = len(self.passages)
        for word in set(keywords(query)):
            found = self._occurrences.get(word, {})
            rarity = math.log(1 + (total - len(found) + 0.5) / (len(found) + 0.5))
            for number, times in found.items():
                damping = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * self._lengths[number])
                scores[number] += rarity * times * (SATURATION + 1) / (times + damping)
        best = sorted(scores, key=lambda number: -scores[number])[:limit]
        return [self.passages[number] for number in best]


class Knowledge:
    """The articles of one directory and the index over them, which :meth:`reindex` brings up to date."""

    def __init__(self, directory: Traversable | None = None) -> None:
        """Take the articles from ``directory``, by default those of the demo. Nothing is read yet."""
        self._directory = files("llm_common.demo") / "articles" if directory is None else directory
        self.index = Index(())

    @property
    def titles(self) -> list[str]:
        """The titles of the articles that are indexed, in alphabetical order."""
        return sorted({passage.title for passage in self.index.passages})

    def article(self, number: int) -> tuple[str, str]:
        """Return title and text of an article; the first of :attr:`titles` has the number 1.

        Raises :class:`UnknownArticleError` where there is none of that number.
        """
        titles = self.titles
        if not 0 < number <= len(titles):
            raise UnknownArticleError(f"there is no article {number}")
        title = titles[number - 1]
        return title, "\n\n".join(passage.text for passage in self.index.passages if passage.title == title)

    def search(self, query: str) -> list[Passage]:
        """Return the passages that answer ``query`` best; none where no word of it is known."""
        return self.index.search(query)

    def reindex(self) -> None:
        """Read every ``.txt`` file anew and put the new index in the place of the old one.

        Adds the bytes of each file to the size of the action that is under way. Searches that run meanwhile, in other
        threads, see the old index.
        """
        passages: list[Passage] = []
        for file in self._directory.iterdir():
            if file.name.endswith(".txt"):
                content = file.read_bytes()
                title, *paragraphs = content.decode().strip().split("\n\n")
                passages += (Passage(title, paragraph) for paragraph in paragraphs)
                current_action().size(len(content))
        self.index = Index(passages)
