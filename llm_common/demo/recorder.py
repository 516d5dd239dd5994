"""The demo's own backend: it keeps the figures that the screen shows, whatever other backends there are.

It also shows all that it takes to write one: an object with one hook, which returns a recorder for each action.
"""

import math
from collections import Counter, deque
from time import monotonic

from llm_common import hookimpl
from llm_common.contract import Status

LATEST = 5_000
"""Over how many of an action's latest durations the quantiles are taken."""


class ActionFigures:
    """The recorder of one action, and what it has seen once :meth:`update` was called.

    Recorders are called from any thread, and from a signal handler in the midst of another call. Hence the two methods
    that record do nothing but append, which can't be interrupted; the one reader does the rest.
    """

    def __init__(self, name: str, started: float) -> None:
        self.name = name
        self.counts: Counter[Status] = Counter()
        self.per_second: Counter[int] = Counter()
        """How many actions ended in each second since the start."""
        self.size: float | None = None
        """The sum of the sizes; ``None`` where there were none."""
        self._durations: deque[float] = deque(maxlen=LATEST)
        self._ended: deque[tuple[Status, float, int]] = deque()
        self._sizes: deque[float] = deque()
        self._started = started

    def finished(self, status: Status, seconds: float) -> None:
        """Note that the action ended."""
        self._ended.append((status, seconds, int(monotonic() - self._started)))

    def sized(self, amount: float) -> None:
        """Note a size."""
        self._sizes.append(amount)

    def update(self) -> None:
        """Work what came since the last call into the figures. Called by the one reader alone."""
        while self._ended:
            status, seconds, second = self._ended.popleft()
            self.counts[status] += 1
            self.per_second[second] += 1
            self._durations.append(seconds)
        while self._sizes:
            self.size = (self.size or 0.0) + self._sizes.popleft()

    @property
    def total(self) -> int:
        """How many actions ended, in whatever way."""
        return self.counts.total()

    @property
    def error_share(self) -> float:
        """Which share of them were errors, from 0 to 1."""
        return self.counts[Status.ERROR] / self.total if self.total else 0.0

    def quantile(self, share: float) -> float:
        """Return the duration, in seconds, that ``share`` (above 0, at most 1) of the latest did not exceed.

        Not a number where nothing has ended yet.
        """
        ordered = sorted(self._durations)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


class DemoRecorder:
    """The backend: one :class:`ActionFigures` for each action name."""

    name = "demo"

    def __init__(self) -> None:
        self._figures: dict[str, ActionFigures] = {}
        self.begin()

    def begin(self) -> None:
        """Set the clock to zero. To be called before the first action."""
        self._started = monotonic()

    @hookimpl
    def llm_common_bind_action(self, name: str) -> ActionFigures:
        """Return the recorder of an action, the same each time."""
        return self._figures.setdefault(name, ActionFigures(name, self._started))

    @property
    def elapsed(self) -> float:
        """The seconds since :meth:`begin`."""
        return monotonic() - self._started

    def figures(self) -> list[ActionFigures]:
        """Return the figures of each action, brought up to date, sorted by name."""
        found = sorted(self._figures.values(), key=lambda action: action.name)
        for action in found:
            action.update()
        return found
