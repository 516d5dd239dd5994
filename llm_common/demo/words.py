"""Which words of a text count when one text is compared with another."""

import re

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a all also am an and any are as at be been but by can cannot could did do does don for from get had has have how
        i if in into is isn it its like long me must my need no not of on once one or our out please so still t than
        that the their them then there they this to too until up us use want was we were what when where which who why
        will with would yes you your
        """,
    )
)
"""English words that say nothing about what a text is about."""

WORD = re.compile(r"[^\W_]+")


def keywords(text: str) -> list[str]:
    """Return the words of ``text`` that carry meaning, in order, in lower case and without the plural's ``s``."""
    return [singular(word) for word in WORD.findall(text.lower()) if word not in STOP_WORDS]


def singular(word: str) -> str:
    """Return ``word`` without a final ``s``: crude, but the same for questions and articles."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
