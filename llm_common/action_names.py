"""Names of actions: the suffixes that dashboards filter on, and how a callable's own name becomes one.

Integrations name an action after what the framework calls a thing, or after the function that handles it; never after
data of users.
"""

import re
from functools import partial, partialmethod
from inspect import unwrap
from typing import Any

HANDLER, TASK, LLM_CALL, AGENT = "_handler", "_task", "_llm_call", "_agent"
SUFFIXES = (HANDLER, TASK, LLM_CALL, AGENT)
"""What the names of handlers, scheduled jobs, LLM calls and agent runs end with."""

WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
NO_LETTERS = re.compile(r"[^a-z0-9]+")


def snake_case(text: str) -> str:
    """Return ``text`` in lower case, its words separated by ``_``: ``MenuHandler`` and ``menu-handler`` alike."""
    return NO_LETTERS.sub("_", WORD_ENDS.sub("_", text).lower()).strip("_")


def with_suffix(text: str, suffix: str) -> str:
    """Return the name of an action for a thing that is called ``text``: in snake_case, with ``suffix`` once.

    What has no letter or digit of ASCII becomes ``unnamed`` with the suffix.
    """
    name = snake_case(text) or "unnamed"
    return name if name.endswith(suffix) or name == suffix[1:] else name + suffix


def end_of(dotted: str) -> str:
    """Return the last part of a dotted name, and those before it as far as that doesn't begin with a letter.

    Where nothing does, ``unnamed`` goes first: no name of an action begins with a digit.
    """
    end = ""
    for part in reversed(dotted.split(".")):
        end = f"{part}.{end}"
        if snake_case(end)[:1].isalpha():
            return end
    return f"unnamed.{end}"


def name_of(target: Any) -> str:
    """Return what a callable is called: a function by its own name, a class or an object by its class.

    Wrappers that name what they wrap, :func:`functools.partial` and methods are looked through. A lambda is ``lambda``.
    """
    while isinstance(target, partial | partialmethod):
        target = target.func
    target = unwrap(target)
    if isinstance(target, partial):
        return name_of(target)
    name = getattr(target, "__name__", None)
    return (name if isinstance(name, str) else type(target).__name__).strip("<>")
