"""``current_action()``: the tracker of the action that runs around the caller.

Keeping track of it costs every block a quarter of a microsecond or so, and most applications never ask. So trackers are
made findable when this module is first imported, which ``from llm_common import current_action`` does by itself; until
then nothing is paid. Import it where modules begin, as usual: an import in the middle of an action still finds the
actions whose trackers the code above it holds in local variables, as every decorated call does, and no others.
"""

import sys

from llm_common.dispatch import make_trackers_findable
from llm_common.tracker import NO_ACTION, ActionTracker, Step, get_current, nearest_running, set_current


def current_action() -> ActionTracker:
    """Return the tracker of the innermost action that runs in this thread or task.

    Outside of any it is a tracker that does nothing, so that code deep inside an application can always write
    ``current_action().size(n)`` or ``current_action().to_fail()``.
    """
    return nearest_running(get_current())


def adopt_running() -> None:
    """Make current the trackers that run already and that the calling functions hold in local variables."""
    found: dict[int, ActionTracker] = {}
    steps: dict[int, Step] = {}
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        for value in frame.f_locals.values():
            if issubclass(type(value), ActionTracker) and value is not NO_ACTION and value._running:
                found[id(value)] = value
            elif type(value) is Step:
                steps[id(value._inside)] = value
    outer = get_current()
    while id(outer) in found:  # a generator's tracker, which its step has made current already
        outer = outer._outer
    for tracker in sorted(found.values(), key=lambda one: one._started):  # blocks of one stack are nested
        tracker._outer = outer
        if id(tracker) in steps:  # what is current again when the generator has made its step
            steps[id(tracker)]._before = outer
        outer = tracker
    set_current(outer)


make_trackers_findable()
adopt_running()
