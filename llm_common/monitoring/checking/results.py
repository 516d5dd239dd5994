"""What is known of the series that an expression returns, and what operations do to their labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llm_common.monitoring.checking.text import MARK
from llm_common.monitoring.checking.vocabulary import ANY, Values

Labels = Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of the series that an expression returns."""

    labels: Labels | None = None
    """``None`` where nobody knows them."""
    grows: bool | None = None
    scalar: bool = False
    summed: bool = False
    """Whether it is an aggregation."""


SCALAR = Result({}, scalar=True)


def only(labels: Labels | None, kept: Iterable[str]) -> Labels | None:
    """Return those labels that are kept and exist; all that are kept where that isn't known."""
    if any(MARK in one for one in kept):
        return None
    return {one: (labels or {}).get(one, ANY) for one in kept if labels is None or one in labels}


def without(labels: Labels, dropped: Iterable[str]) -> Labels:
    """Return all labels but some."""
    return {name: values for name, values in labels.items() if name not in dropped}


def either(one: Labels | None, other: Labels | None) -> Labels | None:
    """Return the labels of both, if all are known."""
    return None if one is None or other is None else united(one, other)


def united(one: Labels, other: Labels) -> dict[str, Values]:
    """Return the labels of both."""
    return {**one, **{name: (one[name] | values if name in one else values) for name, values in other.items()}}
