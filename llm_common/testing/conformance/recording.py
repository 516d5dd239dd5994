"""What the contract suites record with: the memory backend, and a way to wait for what a server is about to record."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from llm_common.backends.memory import HttpRecord, MemoryBackend, Record
from llm_common.contract import HttpExchange
from llm_common.dispatch import override

PATIENCE = 20.0
"""How long, in seconds, a contract suite waits for what must come."""

HELD = 0.05
"""How long, in seconds, a server is made to wait where a duration is looked at."""


class Recording(MemoryBackend):
    """Records as the memory backend does, and wakes up whoever waits for more."""

    def __init__(self) -> None:
        super().__init__()
        self._more = Condition()

    def add(self, record: Record) -> None:
        """Keep one record."""
        super().add(record)
        with self._more:
            self._more.notify_all()

    def ended(self, number: int = 1) -> list[HttpExchange]:
        """Return the HTTP exchanges recorded so far, once there are ``number``.

        A server records when it has sent the last byte, which may be a moment after the client has read it. Raises
        :class:`AssertionError` where there are fewer after :data:`PATIENCE` seconds, or more at once.
        """
        with self._more:
            self._more.wait_for(lambda: len(self.exchanges) >= number, PATIENCE)
        found = list(self.exchanges)
        assert len(found) == number, f"{number} exchange(s) were expected, {len(found)} recorded: {found}"
        return found

    def one(self) -> HttpExchange:
        """Return the only exchange, once it is recorded."""
        return self.ended()[0]

    @property
    def others(self) -> list[Record]:
        """Everything else that was recorded."""
        return [record for record in self.records if not isinstance(record, HttpRecord)]


@contextmanager
def recording() -> Iterator[Recording]:
    """Record every exchange of this process for the length of a ``with`` block, in strict mode."""
    backend = Recording()
    with override(backends=(backend,), strict=True):
        yield backend
