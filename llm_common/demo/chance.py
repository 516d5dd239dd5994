"""The one source of chance: whatever happens by accident in the demo is drawn from here, and so can be repeated."""

from random import Random


def seeded(seed: int, who: str) -> Random:
    """Return the generator of random numbers for ``who``: the same seed and name give the same numbers."""
    return Random(f"{who} {seed}")  # noqa: S311 - chance for a play, no secrets
