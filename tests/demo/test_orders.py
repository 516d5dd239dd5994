import pytest

from llm_common.demo.chance import seeded
from llm_common.demo.orders import FIRST_ORDER, ORDERS, STATES, OrderBook, UnknownOrderError


def test_the_same_seed_gives_the_same_orders() -> None:
    numbers = range(FIRST_ORDER, FIRST_ORDER + ORDERS)
    first, second = OrderBook(seeded(3, "orders")), OrderBook(seeded(3, "orders"))
    assert [first.state(number) for number in numbers] == [second.state(number) for number in numbers]
    assert {first.state(number) for number in numbers} == set(STATES)


@pytest.mark.parametrize("number", [FIRST_ORDER - 1, FIRST_ORDER + ORDERS])
def test_an_unknown_order_is_an_error_that_names_it(number: int) -> None:
    with pytest.raises(UnknownOrderError, match=str(number)):
        OrderBook(seeded(1, "orders")).state(number)
