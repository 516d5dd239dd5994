"""A limit for the number of series, so that a name which is built from data can't fill the memory."""

from collections.abc import Iterator
from itertools import count


class SeriesLimit:
    """Admits the first so many keys that it is asked about, and no others.

    It takes no lock: each key draws a number, and only those below the limit are admitted. Where two threads bring the
    same new key at the same moment, a number may be wasted; there are never too many.
    """

    def __init__(self, most: int, before: "SeriesLimit | None" = None) -> None:
        """Admit ``most`` keys, those among them that were admitted ``before``, by an earlier configuration."""
        self.most = most
        self._admitted: set[object] = before._admitted if before else set()
        self._numbers: Iterator[int] = before._numbers if before else count()
        self.told: bool = before is not None and before.told and before.most == most
        """Whether it was said that there were more."""

    def admits(self, key: object) -> bool:
        """Return whether ``key`` may have series of its own."""
        if key in self._admitted:
            return True
        if len(self._admitted) >= self.most:
            return False
        if next(self._numbers) >= self.most:
            return False
        self._admitted.add(key)
        return True
