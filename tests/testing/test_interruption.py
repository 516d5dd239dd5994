"""How the suite for backends interrupts code, and notices what never ends."""

from threading import Event

import pytest

from llm_common.testing.conformance.interruption import interrupted_everywhere, within


def test_each_instruction_is_interrupted_once() -> None:
    seen: list[str] = []

    def run() -> None:
        for _ in range(3):
            seen.append("line")

    number = interrupted_everywhere(run, lambda: seen.append("interruption"))
    assert 5 < number < 50
    assert seen.count("interruption") == number
    assert seen.count("line") == 3


def test_what_hangs_is_told_with_its_stack_and_what_raises_is_raised() -> None:
    hung = Event()
    with pytest.raises(AssertionError, match=r"(?s)waiting takes longer than 0.1 seconds.*hung.wait"):
        within(0.1, lambda: hung.wait(20), "waiting")
    hung.set()
    with pytest.raises(ZeroDivisionError):
        within(20, lambda: 1 / 0, "dividing")
