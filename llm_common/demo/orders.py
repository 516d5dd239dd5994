"""The shop's orders, of which customers ask where they are."""

from random import Random

STATES = ("is being packed", "has left the warehouse", "is in the delivery van", "was delivered yesterday")
FIRST_ORDER = 1000
ORDERS = 90


class UnknownOrderError(LookupError):
    """There is no order of that number."""


class OrderBook:
    """Every order with its state, by number; the numbers begin at :data:`FIRST_ORDER`."""

    def __init__(self, chance: Random) -> None:
        self._states = {FIRST_ORDER + number: chance.choice(STATES) for number in range(ORDERS)}

    def state(self, number: int) -> str:
        """Return where the order is, in words. Raises :class:`UnknownOrderError` where there is none."""
        try:
            return self._states[number]
        except KeyError:
            raise UnknownOrderError(f"there is no order {number}") from None
