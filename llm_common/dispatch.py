"""From a tracked action to the backends: the plugin manager, the bindings, and the one mutable global.

A :class:`Pipeline` is one configuration made real: a pluggy manager with the backends and plugins that the settings
name. :data:`bindings` maps each action name to what the active pipeline bound for it; it is filled on first use and
emptied whenever another pipeline becomes active, so that no handle survives a change. An action that is under way
keeps the :class:`BoundAction` that it began with, and so ends on the backends that it started on.
"""

import atexit
import inspect
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import pluggy

from llm_common import hookspecs, plugins
from llm_common.contract import ActionEvent, Status
from llm_common.errors import LLMCommonError, PluginError, TrackingError
from llm_common.settings import Settings, clean_label, find_pyproject, main_module_name, resolve, wants_strict
from llm_common.tracker import ActionTracker, SilentTracker

if TYPE_CHECKING:
    from pluggy import HookCaller

logger = logging.getLogger("llm_common")

SHUTDOWN_TIMEOUT = 5.0
"""How long, in seconds, backends are given to flush when the interpreter exits or another configuration takes over."""


class BoundAction:
    """One action name with all that the backends of one pipeline bound for it."""

    __slots__ = ("enders", "finishers", "name", "pipeline", "sizers", "tracker_class")

    def __init__(self, name: str, pipeline: "Pipeline", recorders: Sequence[tuple[str, Any]]) -> None:
        self.name = name
        self.pipeline = pipeline
        self.tracker_class: type[ActionTracker] = ActionTracker if pipeline.records else SilentTracker
        self.enders = tuple((backend, one.ended) for backend, one in recorders if hasattr(one, "ended"))
        self.finishers = tuple((backend, one.finished) for backend, one in recorders if not hasattr(one, "ended"))
        self.sizers = tuple((backend, one.sized) for backend, one in recorders)

    def finished(self, tracker: ActionTracker, seconds: float, exception: BaseException | None) -> None:
        """Tell every recorder that the action ended after ``seconds``; ``exception`` is what left its block."""
        faults: list[Exception] = []
        if exception is not None:
            status = self.pipeline.classify(exception, faults)
        else:
            status = Status.ERROR if tracker._failed else Status.OK
        for backend, finished in self.finishers:
            try:
                finished(status, seconds)
            except Exception as fault:
                self.pipeline.report_fault(backend, "finished", fault, faults)
        if self.enders:
            if exception is not None:
                error_name = type(exception).__name__
            else:
                error_name = tracker._error_name if tracker._failed else ""
            event = ActionEvent(self.name, status, tracker._size, seconds, error_name)
            for backend, ended in self.enders:
                try:
                    ended(event)
                except Exception as fault:
                    self.pipeline.report_fault(backend, "ended", fault, faults)
        if faults and exception is None and self.pipeline.settings.strict:
            raise faults[0]  # never where it would replace an exception of the application

    def sized(self, tracker: ActionTracker, amount: float) -> None:
        """Add ``amount`` on every recorder, or report why it can't be added."""
        try:
            valid = hasattr(amount, "__float__") and 0 <= float(amount) < math.inf
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            self.misused("size", f"size({amount!r:.100}) is no size; accepted: a finite number that isn't negative")
            return
        if self.enders:
            with size_lock:
                tracker._size = amount if tracker._size is None else tracker._size + amount
        faults: list[Exception] = []
        for backend, sized in self.sizers:
            try:
                sized(amount)
            except Exception as fault:
                self.pipeline.report_fault(backend, "sized", fault, faults)
        if faults and self.pipeline.settings.strict:
            raise faults[0]

    def misused(self, operation: str, problem: str) -> None:
        """Raise :class:`TrackingError` in strict mode, else log the problem, once per action as a warning."""
        text = f"action {self.name!r}: {problem}"
        if self.pipeline.settings.strict:
            raise TrackingError(text)
        self.pipeline.log_once((self.name, operation), text)


size_lock = RLock()
"""Guards the sum that a tracker keeps for events, since several threads may share one tracker. Re-entrant because a
``__del__`` that runs meanwhile may be tracked too."""


class HookObject:
    """A plugin as pluggy sees it: its hook implementations, compared by identity; two equal ones are still two."""

    def __init__(self, wrapped: object, described: str) -> None:
        self.wrapped = wrapped
        self.described = described
        for name in dir(wrapped):
            static = inspect.getattr_static(wrapped, name, None)  # evaluates no property
            if hasattr(getattr(static, "__func__", static), f"{hookspecs.PROJECT}_impl"):
                setattr(self, name, getattr(wrapped, name))

    def __repr__(self) -> str:
        return self.described


class Pipeline:
    """The backends and plugins of one configuration, ready to bind actions."""

    def __init__(self, settings: Settings) -> None:
        """Load what ``settings`` names and create its backends.

        Raises :class:`~llm_common.errors.UnknownBackendError` or :class:`~llm_common.errors.PluginError`.
        """
        self.settings = settings
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._seen: set[object] = set()
        for item in settings.plugins:
            if isinstance(item, str):
                self._register(plugins.load(item, "plugin", settings.source("plugins")), f"plugin {item!r}")
            else:
                self._register(item, f"plugin {item!r}")
        self._backends: dict[str, HookObject] = {}
        for item in settings.backends:
            self._add_backend(item)
        self._check_hooks()
        self.records = any(
            not impl.wrapper and not impl.hookwrapper
            for impl in self.manager.hook.llm_common_bind_action.get_hookimpls()
        )
        """Whether any backend records actions; false where ``noop`` is the only one."""
        self._binders = {
            name: self.manager.subset_hook_caller(
                "llm_common_bind_action", [other for other in self._backends.values() if other is not backend]
            )
            for name, backend in self._backends.items()
        }
        try:
            self.manager.hook.llm_common_configured.call_historic(kwargs={"settings": settings})
        except LLMCommonError:
            raise
        except Exception as problem:
            raise PluginError(f"llm_common_configured raised {type(problem).__name__}: {problem}") from problem

    @property
    def backends(self) -> Mapping[str, object]:
        """The backends by name, in the order of the settings."""
        return {name: backend.wrapped for name, backend in self._backends.items()}

    def _register(self, plugin: object, described: str) -> HookObject:
        if isinstance(plugin, type):
            raise PluginError(f"the {described} is a class; give an instance of it: {plugin.__name__}()")
        wrapped = HookObject(plugin, described)
        try:
            self.manager.register(wrapped, name=f"{described} #{len(self.manager.get_plugins())}")
        except Exception as problem:  # pluggy's validation names the hook and the argument
            raise PluginError(f"the {described} has a wrong hook: {problem}") from None
        return wrapped

    def _add_backend(self, item: object) -> None:
        if not isinstance(item, str):
            name = str(getattr(item, "name", type(item).__name__))
            while name in self._backends:
                name += "'"
            self._backends[name] = self._register(item, f"backend {name!r}")
            return
        source = self.settings.source("backends")
        provider = self._register(plugins.load(item, "backend", source), f"backend {item!r}")
        if not hasattr(provider, "llm_common_create_backend"):
            self._backends[item] = provider  # a module or object that is itself the backend
            return
        try:
            backend = self.manager.hook.llm_common_create_backend(name=item, settings=self.settings)
        except LLMCommonError:
            raise
        except Exception as problem:
            raise PluginError(
                f"the backend {item!r} ({source}) can't be created: {type(problem).__name__}: {problem}"
            ) from problem
        if backend is None:
            raise PluginError(
                f"the backend {item!r} ({source}) can't be created: "
                f"llm_common_create_backend(name={item!r}) of {provider.wrapped!r} returned None"
            )
        self._backends[item] = self._register(backend, f"backend {item!r}")

    def _check_hooks(self) -> None:
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as problem:
            known = ", ".join(sorted(name for name in vars(hookspecs) if name.startswith("llm_common_")))
            raise PluginError(f"a hook is misspelt: {problem}. The hooks are: {known}") from None

    def bind(self, name: str) -> BoundAction:
        """Ask each backend for its recorder of the action ``name``. A backend that fails is left out, once logged."""
        label = clean_label(name)
        recorders: list[tuple[str, Any]] = []
        faults: list[Exception] = []
        for backend, binder in self._binders.items():
            try:
                recorder = binder(name=label)
                if recorder is not None:
                    recorders.append((backend, checked_recorder(recorder)))
            except Exception as fault:
                self.report_fault(backend, "llm_common_bind_action", fault, faults)
        if faults and self.settings.strict:
            raise faults[0]
        return BoundAction(label, self, recorders)

    def classify(self, exception: BaseException, faults: list[Exception]) -> Status:
        """Return the status of an action that ``exception`` ended."""
        hook: HookCaller = self.manager.hook.llm_common_classify_exception
        if hook.get_hookimpls():
            try:
                status = hook(exception=exception)
                if status is not None:
                    return Status(status)
            except Exception as fault:
                self.report_fault("a plugin", "llm_common_classify_exception", fault, faults)
        return Status.ERROR if isinstance(exception, Exception) else Status.CANCELLED

    def report_fault(self, backend: str, operation: str, fault: Exception, faults: list[Exception]) -> None:
        """Log that ``operation`` of ``backend`` raised ``fault``: a warning with traceback once, then at debug level.

        The fault is also added to ``faults``, for strict mode.
        """
        faults.append(fault)
        self.log_once(
            (backend, operation),
            f"{backend}: {operation} raised {type(fault).__name__}: {fault}; "
            "the application is not affected, these measurements of this backend are lost",
            fault,
        )

    def log_once(self, key: object, text: str, fault: Exception | None = None) -> None:
        """Log ``text`` as a warning the first time that ``key`` is seen, then at debug level."""
        level = logging.DEBUG if key in self._seen else logging.WARNING
        self._seen.add(key)
        with suppress(Exception):  # a broken log handler must not reach the application either
            logger.log(level, "%s", text, exc_info=fault)

    def shutdown(self, timeout: float, kept: Sequence[object] = ()) -> None:
        """Let every backend and plugin that isn't among ``kept`` flush and release, within ``timeout`` seconds each."""
        caller: HookCaller = self.manager.hook.llm_common_shutdown
        for impl in caller.get_hookimpls():
            wrapped = cast("HookObject", impl.plugin).wrapped
            if not any(wrapped is one for one in kept):
                try:
                    self.manager.subset_hook_caller(
                        "llm_common_shutdown", [one for one in self.manager.get_plugins() if one is not impl.plugin]
                    )(timeout=timeout)
                except Exception as fault:
                    self.report_fault(impl.plugin_name, "llm_common_shutdown", fault, [])

    def objects(self) -> list[object]:
        """Return every backend and plugin object that is registered."""
        return [cast("HookObject", plugin).wrapped for plugin in self.manager.get_plugins()]


def checked_recorder(recorder: object) -> object:
    """Return ``recorder`` if it is one; raise :class:`PluginError` that says what is missing otherwise."""
    for method in ("ended" if hasattr(recorder, "ended") else "finished", "sized"):
        if not callable(getattr(recorder, method, None)):
            raise PluginError(
                f"llm_common_bind_action returned {recorder!r:.100}, which has no method {method}(); "
                "a recorder has finished(status, seconds) and sized(amount)"
            )
    return recorder


class Bindings(dict[str, BoundAction]):
    """What the active pipeline bound for each action name; filled on first use, emptied by a change."""

    def __missing__(self, name: str) -> BoundAction:
        check_name(name)
        with state.lock:
            bound = self.get(name)
            if bound is None:
                pipeline = active()
                bound = pipeline.bind(name)
                if pipeline is state.active:  # a hook may have reconfigured meanwhile
                    self[name] = bound
            return bound


def check_name(name: object) -> None:
    """Raise :class:`TypeError` or :class:`ValueError` where ``name`` can't name an action."""
    if not isinstance(name, str):
        what = f"the function {name.__name__}" if callable(name) and hasattr(name, "__name__") else repr(name)
        raise TypeError(
            f"an action's name must be a string, not {what:.200}. "
            'Write: with action_tracking("menu_handler") as tracker: '
            'or, above a function: @action_tracking_decorator("menu_handler")'
        )
    if not name:
        raise ValueError('an action\'s name is empty; write for example action_tracking("menu_handler")')


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


state = State()
bindings = Bindings()


def _after_fork_in_child() -> None:
    state.lock = RLock()  # the thread that held it in the parent does not exist here


if hasattr(os, "register_at_fork"):  # pragma: no branch - absent on Windows alone
    os.register_at_fork(after_in_child=_after_fork_in_child)


def active() -> Pipeline:
    """Return the active pipeline; on first use, make it from the environment.

    A fault found here, because nobody called ``configure()``, is logged once as an error and leaves the application
    without metrics; in strict mode it raises.
    """
    if state.active is None:
        with state.lock:
            if state.active is None:
                settings: Settings | None = None
                try:
                    settings = read_settings({})
                    pipeline = Pipeline(settings)
                except Exception as problem:
                    if settings.strict if settings else wants_strict(os.environ):
                        raise
                    unforeseen = None if isinstance(problem, LLMCommonError) else problem
                    logger.error("%s (until then, no metrics are recorded)", problem, exc_info=unforeseen)
                    pipeline = Pipeline(Settings(app="unknown", backends=("noop",)))
                _activate(pipeline)
    return cast("Pipeline", state.active)


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
