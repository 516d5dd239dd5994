"""The one mutable global: which pipeline is active, and what it bound for each action name.

:data:`bindings` is filled on first use and emptied whenever another pipeline becomes active, so that no handle survives
a change. An action that is under way keeps what it began with, and so ends on the backends that it started on.
"""

import atexit
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

from llm_common.errors import LLMCommonError
from llm_common.pipeline import BoundAction, Pipeline, shown
from llm_common.settings import Settings, find_pyproject, main_module_name, resolve, wants_strict

logger = logging.getLogger("llm_common")

SHUTDOWN_TIMEOUT = 5.0
"""How long, in seconds, backends are given to flush when the interpreter exits or another configuration takes over."""


bindings: dict[str, BoundAction] = {}
"""What the active pipeline bound for each action name; filled on first use, emptied by a change."""


def bind(name: object) -> BoundAction:
    """Return what the active pipeline binds for ``name``, and keep it in :data:`bindings`.

    Raises :class:`TypeError` or :class:`ValueError` where ``name`` can't name an action.
    """
    checked = check_name(name)
    with state.lock:
        return bindings.get(checked) or _bind(checked)  # another thread may have been faster


def _bind(name: str) -> BoundAction:
    pipeline = active()
    bound = pipeline.bind(name, state.findable)
    if pipeline is state.active:  # a hook may have reconfigured meanwhile
        bindings[name] = bound
    return bound


def check_name(name: object) -> str:
    """Return ``name``; raise :class:`TypeError` or :class:`ValueError` where it can't name an action."""
    if not isinstance(name, str):
        kind = "class" if isinstance(name, type) else "function"
        what = f"the {kind} {name.__name__}" if callable(name) and hasattr(name, "__name__") else shown(name)
        raise TypeError(
            f"an action's name must be a string, not {what}. "
            'Write: with action_tracking("menu_handler") as tracker: '
            'or, above a function: @action_tracking_decorator("menu_handler")'
        )
    if not name:
        raise ValueError('an action\'s name is empty; write for example action_tracking("menu_handler")')
    return name


class Override:
    """One ``override()`` in force. Its backends are created once and outlive a ``configure()`` inside its block."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        self.changes = dict(changes)
        self.base: Pipeline | None = None
        self.pipeline: Pipeline | None = None

    def follow(self, base: Pipeline | None) -> Pipeline:
        """Return the pipeline for this override on top of ``base``, made anew only where ``base`` changed."""
        if self.pipeline is None or self.base is not base:
            settings = base.settings if base else read_settings({"backends": "noop"})
            self.pipeline = Pipeline(replace(settings, **self.changes))
            self.base = base
            if "backends" in self.changes:
                self.changes["backends"] = tuple(self.pipeline.backends.values())
        return self.pipeline


class State:
    """The one mutable global: the configured pipeline, what overrides it, and which is active."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.base: Pipeline | None = None
        self.overrides: list[Override] = []
        self.active: Pipeline | None = None
        self.stopped: Pipeline | None = None
        self.exit_registered = False
        self.findable = False


state = State()


def _after_fork_in_child() -> None:
    state.lock = RLock()  # the thread that held it in the parent does not exist here


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def active() -> Pipeline:
    """Return the active pipeline; on first use, make it from the environment.

    A fault found here, because nobody called ``configure()``, is logged once as an error and leaves the application
    without metrics; in strict mode it raises.
    """
    pipeline = state.active
    if pipeline is None:
        with state.lock:
            pipeline = state.active or _first_use()
    return pipeline


def _first_use() -> Pipeline:
    settings: Settings | None = None
    try:
        settings = read_settings({})
        pipeline = Pipeline(settings)
    except Exception as problem:
        if settings.strict if settings else wants_strict(os.environ):
            raise
        unforeseen = None if isinstance(problem, LLMCommonError) else problem
        logger.error("llm_common: %s No metrics are recorded until this is mended.", problem, exc_info=unforeseen)
        pipeline = Pipeline(Settings(app="unknown", backends=("noop",)))
    _activate(pipeline)
    return pipeline


def read_settings(overrides: Mapping[str, object]) -> Settings:
    """Return the settings that follow from ``overrides``, this process's environment and the nearest pyproject.toml."""
    try:
        directory: Path | None = Path.cwd()
    except OSError:  # the working directory was deleted
        directory = None
    return resolve(
        overrides,
        os.environ,
        find_pyproject(directory) if directory else None,
        main_module_name(sys.modules.get("__main__")),
    )


def configure(
    *,
    app: str | None = None,
    env: str | None = None,
    backends: Sequence[object] | str | None = None,
    plugins: Sequence[object] | str | None = None,
    strict: bool | None = None,
    action_duration_buckets: Sequence[float] | None = None,
) -> Settings:
    """Set up metrics for this process, and return the settings with where each value came from.

    Optional: without it, the environment decides on first use. What is ``None`` is taken from the environment
    (``LLM_COMMON_APP``, …), then from ``[tool.llm_common]`` in pyproject.toml, then from the defaults. May be called
    again at any time and from any thread: the latest call wins; actions under way end on the backends that they
    started on.

    ``backends`` and ``plugins`` take names and objects with hook implementations; ``action_duration_buckets`` the upper
    bounds of ``genapp_action_duration_sec``, in seconds, ascending.

    Raises :class:`~llm_common.errors.ConfigurationError` for a value that can't be read or a backend that doesn't
    exist, and :class:`~llm_common.errors.PluginError` for one that can't be loaded; what was in force then stays.
    """
    settings = read_settings(
        {
            "app": app,
            "env": env,
            "backends": backends,
            "plugins": plugins,
            "strict": strict,
            "action_duration_buckets": action_duration_buckets,
        }
    )
    with state.lock:
        _activate(Pipeline(settings))
    return settings


def shutdown(timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Let every backend flush and release what it holds, within ``timeout`` seconds each, and stop recording.

    What was recorded can still be scraped. ``configure()`` starts anew. Called without effect on the recording when the
    interpreter exits.
    """
    with state.lock:
        previous = state.base
        settings = previous.settings if previous else Settings(app="unknown")
        _activate(Pipeline(replace(settings, backends=("noop",), plugins=())), timeout)
        state.stopped = previous


def backends_to_show() -> list[object]:
    """Return the backends whose values a scrape shows: those in force, then those that ``shutdown()`` stopped."""
    stopped = list(state.stopped.backends.values()) if state.stopped else []
    return [*active().backends.values(), *stopped]


def _activate(base: Pipeline, timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Make ``base`` the configured pipeline, and its override the active one. The lock is held."""
    before = _in_force()
    state.base, state.stopped = base, None
    _refresh()
    _retire(before, timeout)
    if not state.exit_registered:
        state.exit_registered = True
        atexit.register(_at_exit)


def _refresh() -> None:
    """Make the pipeline active that follows from the base and the latest override. The lock is held."""
    state.active = state.overrides[-1].follow(state.base) if state.overrides else state.base
    bindings.clear()


def _in_force() -> set[Pipeline]:
    pipelines = {state.base, state.active, *(one.pipeline for one in state.overrides)}
    return {one for one in pipelines if one is not None}


def _retire(before: set[Pipeline], timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Shut down what was in force ``before`` and no longer is. The lock is held."""
    after = _in_force()
    kept = [plugin for pipeline in after for plugin in pipeline.objects()]
    for pipeline in before - after:
        pipeline.shutdown(timeout, kept)


def _at_exit() -> None:
    for pipeline in _in_force():
        pipeline.shutdown(SHUTDOWN_TIMEOUT)


def make_trackers_findable() -> None:
    """Let all trackers from now on be found by ``current_action()``. There is no way back, and no need for one."""
    with state.lock:
        state.findable = True
        bindings.clear()


@contextmanager
def override(**changes: Any) -> Iterator[Pipeline]:
    """Record elsewhere for the length of a ``with`` block, in the whole process: ``override(backends=(recorder,))``.

    ``changes`` are fields of :class:`~llm_common.settings.Settings`; everything else follows the configuration, also
    when ``configure()`` is called inside the block. Overrides nest: the latest that is still in force counts.
    """
    entered = Override(changes)
    with state.lock:
        pipeline = entered.follow(state.base)
        state.overrides.append(entered)
        _refresh()
    try:
        yield pipeline
    finally:
        with state.lock:
            before = _in_force()
            state.overrides.remove(entered)
            _refresh()
            _retire(before)


@contextmanager
def unconfigured() -> Iterator[None]:
    """Forget, for the length of a ``with`` block, what was configured, and restore it afterwards.

    For tests of configuration itself: inside, ``configure()`` or the first use start from nothing.
    """
    with state.lock:
        kept = state.base, state.overrides, state.active, state.stopped
        state.base, state.overrides, state.active, state.stopped = None, [], None, None
        bindings.clear()
    try:
        yield
    finally:
        with state.lock:
            inside = _in_force()
            state.base, state.overrides, state.active, state.stopped = kept
            bindings.clear()
            _retire(inside)
