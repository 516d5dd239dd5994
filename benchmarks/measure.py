"""Timing statements against each other on a machine whose speed drifts.

All cases take turns in short bursts, and a ratio is formed within each round, so that what slows the machine down for a
while slows down both sides. The median over the rounds is the figure.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Case:
    """One statement to time, with the names that it uses and what has to be done before each burst."""

    statement: str
    names: Mapping[str, Any]
    prepare: Callable[[], object] = lambda: None
    number: int = 2000
    """How often a burst runs the statement."""
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    """In what each burst runs."""

    def compiled(self) -> Callable[[], None]:
        """Return a function that runs the statement :attr:`number` times."""
        source = f"def burst():\n    for _ in range({self.number}):\n        {self.statement}\n"
        namespace = dict(self.names)
        exec(source, namespace)  # the statement is a literal of the benchmark
        function: Callable[[], None] = namespace["burst"]
        return function


@dataclass(frozen=True)
class Timing:
    """What was measured for one case."""

    seconds: tuple[float, ...]
    """For each round, the time of one execution: the fastest of the round's bursts."""

    @property
    def typical(self) -> float:
        """The median over the rounds, in seconds."""
        return median(self.seconds)

    def ratio(self, other: "Timing") -> float:
        """Return how much longer this takes than ``other``: the median of the ratios within each round."""
        return median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


def alternate(cases: Mapping[str, Case], rounds: int, bursts: int = 3) -> dict[str, Timing]:
    """Return the timing of each case after ``rounds`` rounds (5 at the least) of ``bursts`` bursts each."""
    functions = {name: case.compiled() for name, case in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(max(5, rounds)):
        fastest = dict.fromkeys(cases, float("inf"))
        for _ in range(bursts):
            for name, case in cases.items():
                case.prepare()
                function = functions[name]
                with case.around():
                    started = perf_counter()
                    function()
                    seconds_taken = perf_counter() - started
                fastest[name] = min(fastest[name], seconds_taken / case.number)
        for name, best in fastest.items():
            seconds[name].append(best)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
