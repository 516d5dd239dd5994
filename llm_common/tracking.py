"""The facade: what application code calls."""

from llm_common.bound import bindings
from llm_common.dispatch import bind
from llm_common.tracker import ActionTracker


def action_tracking(name: str) -> ActionTracker:
    """Track a section of code as the action ``name``.

    Write ``with action_tracking("menu_handler") as tracker:`` around the section.

    When the block ends, the action ``name`` is counted once with its status (``ok``; ``error`` if an
    :class:`Exception` left the block or ``tracker.to_fail()`` was called; ``cancelled`` for any other
    :class:`BaseException`, such as :class:`asyncio.CancelledError`), and its duration is observed once, in seconds.
    Exceptions pass through untouched. ``tracker.size(n)`` adds the size of what was processed.

    ``name`` is a literal in ``snake_case`` with a suffix that dashboards filter on: ``_handler``, ``_task``,
    ``_llm_call`` or ``_agent``; other names serve other sections. Never build it from user data.

    Raises :class:`TypeError` where ``name`` isn't a string and :class:`ValueError` where it is empty.
    """
    try:
        action = bindings[name]
    except Exception:  # used for the first time, or no name at all, whatever its hash raises
        action = None
    if action is None:
        action = bind(name)
    tracker = action.tracker_class()
    tracker._action = action
    tracker._samples = None
    return tracker
