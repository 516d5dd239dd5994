"""The one mutable global: which pipeline is active, and what it bound for each action name and each HTTP series.

The bindings, which :mod:`llm_common.bound` holds, are filled on first use and emptied whenever another pipeline becomes
active, so that no handle survives a change. An action that is under way keeps what it began with, and so ends on the
backends that it started on.
"""

import atexit
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock, get_ident
from typing import Any, Self

from llm_common.bound import BoundAction, BoundHttp, bindings, forget_bindings, http_bindings, stops_program
from llm_common.contract import HttpSeries
from llm_common.errors import LLMCommonError, shown
from llm_common.pipeline import Pipeline
from llm_common.settings import Settings, find_pyproject, main_module_name, resolve, wants_strict

logger = logging.getLogger("llm_common")

SHUTDOWN_TIMEOUT = 5.0
"""How long, in seconds, backends are given to flush when the interpreter exits or another configuration takes over."""


def bind(name: object) -> BoundAction:
    """Return what the active pipeline binds for ``name``, and keep it.

    Raises :class:`TypeError` or :class:`ValueError` where ``name`` can't name an action.
    """
    checked = check_name(name)
    pipeline, findable = active(), state.findable
    admitted = pipeline.admitted_action(checked)
    bound = bindings.get(admitted)  # past the limit, names share a binding and have none of their own
    if bound is not None:
        return bound
    overflows = pipeline.overflows
    bound = pipeline.bind_action(admitted, findable)
    with state.lock:
        # Else something changed meanwhile, or there was no stack left to ask every backend.
        if pipeline is state.active and findable is state.findable and overflows == pipeline.overflows:
            bound = bindings.setdefault(admitted, bound)
    return bound


def bind_http(series: HttpSeries) -> BoundHttp:
    """Return what the active pipeline binds for an HTTP series, and keep it."""
    pipeline = active()
    admitted = pipeline.admitted_http(series)
    bound = http_bindings.get(admitted)
    if bound is not None:
        return bound
    overflows = pipeline.overflows
    bound = pipeline.bind_http(admitted)
    with state.lock:
        if pipeline is state.active and overflows == pipeline.overflows:
            bound = http_bindings.setdefault(admitted, bound)
    return bound


def misused(problem: str) -> None:
    """Raise :class:`~llm_common.errors.TrackingError` in strict mode, else log ``problem``, once as a warning."""
    active().misused(problem)


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
    """The one mutable global: the configured pipeline, what overrides it, and which is active.

    Two locks, so that no plugin and no log handler is ever called under one that tracking takes: such code may wait for
    another thread, and that thread may be tracking.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        """Guards the fields and the bindings; held for a few statements."""
        self.changing = RLock()
        """Held by whoever changes the configuration, plugins being called meanwhile. Tracking never takes it."""
        self.base: Pipeline | None = None
        self.overrides: tuple[Override, ...] = ()
        self.active: Pipeline | None = None
        self.stopped: Pipeline | None = None
        self.beginning: set[int] = set()
        """The threads in which the first use is under way."""
        self.exit_registered = False
        self.findable = False


state = State()

Fields = tuple[Pipeline | None, tuple[Override, ...], Pipeline | None, Pipeline | None]
"""What :class:`State` holds of a configuration: the base, the overrides, what is active and what was stopped."""


def _after_fork_in_child() -> None:
    state.lock, state.changing = RLock(), RLock()  # the thread that held them in the parent does not exist here
    state.beginning.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def active() -> Pipeline:
    """Return the active pipeline; on first use, make it from the environment.

    A fault found here, because nobody called ``configure()``, is logged once as an error and leaves the application
    without metrics; in strict mode it raises.
    """
    return state.active or _first_use()


def _first_use() -> Pipeline:
    thread = get_ident()
    if thread in state.beginning:  # a plugin that is being loaded tracks something itself
        return nothing_recorded()
    try:
        state.beginning.add(thread)  # in here, since a signal handler may raise as soon as that is done
        pipeline, complaint = _from_environment()
        with state.lock:
            if state.active is None:
                state.base = state.active = pipeline
            chosen = state.active
    finally:
        state.beginning.discard(thread)
    if chosen is not pipeline:  # another thread was faster
        pipeline.shutdown(SHUTDOWN_TIMEOUT, chosen.objects())
    elif complaint and not sys.is_finalizing():  # when nothing can be imported any more
        with suppress(Exception):  # a broken log handler must not reach the application
            unforeseen = None if isinstance(complaint, LLMCommonError) else complaint
            logger.error("llm_common: %s No metrics are recorded until this is mended.", complaint, exc_info=unforeseen)
    _flush_at_exit()
    return chosen


def _from_environment() -> tuple[Pipeline, Exception | None]:
    settings: Settings | None = None
    try:
        settings = read_settings({})
        return Pipeline(settings), None
    except Exception as problem:
        if stops_program(problem) or (settings.strict if settings else wants_strict(os.environ)):
            raise
        return nothing_recorded(), problem


def nothing_recorded(settings: Settings | None = None) -> Pipeline:
    """Return a pipeline that records nothing."""
    return Pipeline(replace(settings or Settings(app="unknown"), backends=(), plugins=()))


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
    http_duration_buckets: Sequence[float] | None = None,
    http_size_buckets: Sequence[float] | None = None,
    first_item_buckets: Sequence[float] | None = None,
    extra_metrics: Sequence[str] | str | None = None,
    max_series: int | None = None,
) -> Settings:
    """Set up metrics for this process, and return the settings with where each value came from.

    Optional: without it, the environment decides on first use. What is ``None`` is taken from the environment
    (``LLM_COMMON_APP``, …), then from ``[tool.llm_common]`` in pyproject.toml, then from the defaults. May be called
    again at any time and from any thread: the latest call wins; actions under way end on the backends that they
    started on.

    ``backends`` and ``plugins`` take names and objects with hook implementations. ``action_duration_buckets``,
    ``http_duration_buckets``, ``first_item_buckets`` (seconds) and ``http_size_buckets`` (bytes) are upper bounds,
    ascending. ``extra_metrics`` switches on metrics beside the contract: ``llm_tokens``, ``first_item``,
    ``in_progress``, or ``all``. ``max_series``
    limits the action names and the HTTP series: what comes past it is counted as ``{other}``.

    Raises :class:`~llm_common.errors.ConfigurationError` for a value that can't be read or a backend that doesn't
    exist, and :class:`~llm_common.errors.PluginError` for one that can't be loaded; what was in force then stays.
    """
    overrides = {
        "app": app,
        "env": env,
        "backends": backends,
        "plugins": plugins,
        "strict": strict,
        "action_duration_buckets": action_duration_buckets,
        "http_duration_buckets": http_duration_buckets,
        "http_size_buckets": http_size_buckets,
        "first_item_buckets": first_item_buckets,
        "extra_metrics": extra_metrics,
        "max_series": max_series,
    }
    with state.changing:
        settings = read_settings(overrides)
        _put_in_force(Pipeline(settings, state.stopped or state.base), state.overrides)
        state.stopped = None
    return settings


def shutdown(timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Let every backend flush and release what it holds, within ``timeout`` seconds each, and stop recording.

    What was recorded can still be scraped. ``configure()`` starts anew. Called without effect on the recording when the
    interpreter exits.

    Raises :class:`ValueError` or :class:`TypeError` where ``timeout`` is no number of seconds from 0 on.
    """
    if not timeout >= 0:
        raise ValueError(f"shutdown(timeout={timeout!r}): accepted: a number of seconds, from 0 on")
    with state.changing:
        stopped = state.stopped or state.base
        _put_in_force(nothing_recorded(stopped.settings if stopped else None), state.overrides, timeout)
        state.stopped = stopped


def backends_to_show() -> list[object]:
    """Return the backends whose values a scrape shows: those in force, then those that ``shutdown()`` stopped."""
    stopped = list(state.stopped.backends.values()) if state.stopped else []
    return [*active().backends.values(), *stopped]


def _put_in_force(base: Pipeline | None, overrides: tuple[Override, ...], timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Make ``base`` the configured pipeline, under ``overrides``.

    Whatever was in force before and no longer is gets shut down. The lock ``changing`` is held.
    """
    before = _in_force()
    pipeline = base
    for one in overrides:  # all of them now, so that a plugin that fails does so before anything has changed
        pipeline = one.follow(base)
    with state.lock:
        state.base, state.overrides, state.active = base, overrides, pipeline
        forget_bindings()
    _retire(before, timeout)
    _flush_at_exit()


def _in_force() -> set[Pipeline]:
    pipelines = {state.base, state.active, *(one.pipeline for one in state.overrides)}
    return {one for one in pipelines if one is not None}


def _retire(before: set[Pipeline], timeout: float = SHUTDOWN_TIMEOUT) -> None:
    after = _in_force()
    kept = [plugin for pipeline in after for plugin in pipeline.objects()]
    for pipeline in before - after:
        pipeline.shutdown(timeout, kept)


def _flush_at_exit() -> None:
    if not state.exit_registered:
        state.exit_registered = True
        atexit.register(_at_exit)


def _at_exit() -> None:
    for pipeline in _in_force():
        pipeline.shutdown(SHUTDOWN_TIMEOUT)


def make_trackers_findable() -> None:
    """Let all trackers from now on be found by ``current_action()``. There is no way back, and no need for one."""
    with state.lock:
        state.findable = True
        forget_bindings()


@contextmanager
def override(**changes: Any) -> Iterator[Pipeline]:
    """Record elsewhere for the length of a ``with`` block, in the whole process: ``override(backends=(recorder,))``.

    ``changes`` are fields of :class:`~llm_common.settings.Settings`; everything else follows the configuration, also
    when ``configure()`` is called inside the block. Overrides nest: the latest that is still in force counts.
    """
    entered = Override(changes)
    with state.changing:
        pipeline = entered.follow(state.base)
        _put_in_force(state.base, (*state.overrides, entered))
    try:
        yield pipeline
    finally:
        with state.changing:
            _put_in_force(state.base, tuple(one for one in state.overrides if one is not entered))


class Configuration:
    """A configuration beside the one in force. ``with`` puts it in force and, at the end, what was there before.

    It begins as that of a process in which nothing was configured, and may be entered again and again.
    """

    def __init__(self) -> None:
        self._aside: Fields = None, (), None, None

    def __enter__(self) -> Self:
        self._swap()
        return self

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        with state.changing, state.lock:
            before = state.base, state.overrides, state.active, state.stopped
            state.base, state.overrides, state.active, state.stopped = self._aside
            self._aside = before
            forget_bindings()

    def close(self) -> None:
        """Shut down what was configured, outside of the ``with`` block."""
        with state.changing:
            with self:
                inside = _in_force()
            self._aside = None, (), None, None
            _retire(inside)


@contextmanager
def unconfigured() -> Iterator[None]:
    """Forget, for the length of a ``with`` block, what was configured, and restore it afterwards.

    For tests of configuration itself: inside, ``configure()`` or the first use start from nothing.
    """
    beside = Configuration()
    try:
        with beside:
            yield
    finally:
        beside.close()
