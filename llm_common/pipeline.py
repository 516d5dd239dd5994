"""One configuration made real: a plugin manager with the backends and plugins that the settings name.

A backend is asked for a recorder when an action name or an HTTP series is first seen; the recorder is kept in a
:class:`BoundAction` or a :class:`BoundHttp` and called directly from then on. Each backend is asked through a caller of
its own, so that one that raises silences nobody, while wrappers (filters, limits) still apply to every backend.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import pluggy

from llm_common import hookspecs, plugins
from llm_common.bound import BoundAction, BoundHttp, BoundMetric, forget_bindings, stops_program
from llm_common.catalog import (
    ACTION_COUNT,
    BACKEND_ERRORS,
    EXTRA_METRICS,
    HTTP_REQUESTS,
    LLM_TOKENS,
    MAX_ACTION_NAMES,
    MAX_HTTP_SERIES,
    OVERFLOW,
    Metric,
)
from llm_common.contract import ActionEvent, ExemplarSource, HttpSeries, Status
from llm_common.errors import LLMCommonError, PluginError, TrackingError, shown
from llm_common.health import FIRST_PAUSE, MOST_FAULTS, Health, Watched, bare, not_nested
from llm_common.hook_objects import HookObject
from llm_common.series_limit import SeriesLimit
from llm_common.settings import Settings, clean_label

if TYPE_CHECKING:
    from pluggy import HookCaller

logger = logging.getLogger("llm_common")

MOST_RENAMES = 10
"""How often wrappers may rename one action before that counts as going round in circles."""

BIND_HOOKS = ("llm_common_bind_action", "llm_common_bind_http", "llm_common_bind_metric")
"""The hooks by which a backend gives its recorders."""

Asked = TypeVar("Asked")


class Limit(NamedTuple):
    """How many series a metric may have, and what is said of more."""

    most: int
    """By default; the setting ``max_series`` overrules it."""
    has: str
    further: str
    question: str


LIMITS: Mapping[Metric, Limit] = MappingProxyType(
    {
        ACTION_COUNT: Limit(
            *(MAX_ACTION_NAMES, "series for {:,} names", "names"),
            "A name is a literal: is one built from user data?",
        ),
        HTTP_REQUESTS: Limit(
            *(MAX_HTTP_SERIES, "{:,} series", "ones"),
            "Is there a part of the path that varies and isn't a number or UUID?",
        ),
        LLM_TOKENS: Limit(MAX_ACTION_NAMES, "{:,} series", "models", "Is a model's name built from data?"),
        BACKEND_ERRORS: Limit(MAX_ACTION_NAMES, "{:,} series", "ones", "Is a backend's name built from data?"),
    }
)
"""The metrics whose labels may be built from data by mistake."""

EXEMPLAR_SOURCE = "llm_common_exemplar_source()"
"""How faults of what that hook returned are told from those of the hook."""


class Pipeline:
    """The backends and plugins of one configuration, ready to bind actions."""

    def __init__(self, settings: Settings, before: "Pipeline | None" = None) -> None:
        """Load what ``settings`` names and create its backends.

        ``before`` is the pipeline that this one takes the place of: what has series already counts for the limits.

        Raises :class:`~llm_common.errors.UnknownBackendError` or :class:`~llm_common.errors.PluginError`.
        """
        self.settings = settings
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._seen: set[object] = set()
        for item in settings.plugins:
            if isinstance(item, str):
                self._register(plugins.load(item, "plugin", settings.source("plugins")), "plugin", item)
            else:
                self._register(item, "plugin", name_of(item))
        self._backends: dict[str, HookObject] = {}
        self._failed: dict[str, Health] = {}
        """The backends that failed at least once."""
        self._fault_counters: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        self._counting: set[int] = set()
        """The threads that count a fault at this moment."""
        self._closed: set[HookObject] = set()
        """What was shut down, and isn't asked to count faults any more."""
        self.overflows = 0
        """How often there was no stack left, which may be the fault of another backend than the one that raised."""
        for item in settings.backends:
            self._add_backend(item)
        self._binders = {hook: self._callers(hook) for hook in BIND_HOOKS}
        self.records = any(self._binders.values())
        """Whether any backend records anything; false where ``noop`` is the only one."""
        earlier = before._limits if before else {}
        self._limits: dict[Metric, SeriesLimit] = {
            metric: SeriesLimit(settings.max_series or limit.most, earlier.get(metric))
            for metric, limit in LIMITS.items()
        }
        self._extras = {EXTRA_METRICS[name] for name in settings.extra_metrics}
        self._metrics: dict[tuple[Metric, tuple[str, ...]], BoundMetric] = {}
        configured: HookCaller = self.manager.hook.llm_common_configured
        with errors_named(configured):
            configured.call_historic(kwargs={"settings": settings})
        self._exemplar = self._exemplar_source()
        """What tells the labels of an exemplar, guarded; ``None`` where nothing does."""

    def _exemplar_source(self) -> ExemplarSource | None:
        caller: HookCaller = self.manager.hook.llm_common_exemplar_source
        with errors_named(caller):
            source = caller(settings=self.settings)
        if source is None:
            return None
        from llm_common.exemplar_labels import exemplar_labels  # most applications have no use for it

        providers = [cast("HookObject", impl.plugin) for impl in caller.get_hookimpls()]
        if not callable(source):
            whose = " or ".join(f"the {one}" for one in providers)
            raise PluginError(
                f"{caller.name} of {whose} returned {shown(source)}, which can't be called; "
                "return a function without arguments, or None"
            )

        given: ExemplarSource = source

        def guarded() -> Mapping[str, str] | None:
            nonlocal source
            try:
                labels = source()
                return None if labels is None else exemplar_labels(labels)
            except BaseException as fault:
                without = "the measurement counts without an exemplar"
                if source is given:
                    source = not_nested(given)
                self._note_fault(" or ".join(one.name for one in providers), EXEMPLAR_SOURCE, fault, without)
                if self.settings.strict:
                    raise
                return None

        return guarded

    @property
    def backends(self) -> Mapping[str, object]:
        """The backends by name, in the order of the settings."""
        return {name: backend.wrapped for name, backend in self._backends.items()}

    def _register(self, plugin: object, role: str, name: str) -> HookObject:
        wrapped = HookObject(plugin, role, name)
        if any(plugin is known for known in self.objects()):
            raise PluginError(f"the {wrapped} is given twice; give each object once, in backends= or in plugins=")
        try:
            self.manager.register(wrapped)
        except Exception as problem:  # pluggy's validation names the hook and the argument
            if stops_program(problem):
                raise
            raise PluginError(f"the {wrapped} has a wrong hook: {problem}") from None
        return wrapped

    def _provider(self, name: str, loaded: object) -> HookObject:
        """Return what is registered for a backend's entry point: it may be in force already, as a plugin."""
        for one in self.manager.get_plugins():
            known = cast("HookObject", one)
            if known.wrapped is loaded and name in self.settings.plugins:
                return known
        return self._register(loaded, "backend", name)

    def _add_backend(self, item: object) -> None:
        if not isinstance(item, str):
            name = name_of(item)
            while name in self._backends:
                name += "'"
            self._backends[name] = self._register(item, "backend", name)
            return
        source = self.settings.source("backends")
        provider = self._provider(item, plugins.load(item, "backend", source))
        if not hasattr(provider, "llm_common_create_backend"):
            self._backends[item] = provider  # a module or object that is itself the backend
            return
        try:
            backend = self.manager.hook.llm_common_create_backend(name=item, settings=self.settings)
        except LLMCommonError:
            raise
        except BaseException as problem:
            if stops_program(problem):
                raise
            raise PluginError(
                f"the backend {item!r} ({source}) can't be created: {type(problem).__name__}: {problem}"
            ) from problem
        if backend is None:
            raise PluginError(
                f"the backend {item!r} ({source}) can't be created: "
                f"llm_common_create_backend(name={item!r}) of {provider.wrapped!r} returned None; "
                f"it must return the backend where name == {item!r}"
            )
        same = backend is provider.wrapped  # an object that creates itself
        self._backends[item] = provider if same else self._register(backend, "backend", item)

    def _callers(self, hook: str) -> "dict[str, HookCaller]":
        """Return for each backend what calls ``hook`` on it and on the wrappers alone; nothing where none has it."""
        implementations = [
            impl
            for impl in getattr(self.manager.hook, hook).get_hookimpls()
            if not impl.wrapper and not impl.hookwrapper
        ]
        for impl in implementations:
            if impl.plugin not in self._backends.values():
                raise PluginError(
                    f"the {impl.plugin!r} has {hook}, so it is a backend: give it in backends=, not in plugins="
                )
        if not implementations:
            return {}
        return {
            name: self.manager.subset_hook_caller(
                hook, [other for other in self._backends.values() if other is not backend]
            )
            for name, backend in self._backends.items()
        }

    def admitted_action(self, name: str) -> str:
        """Return ``name``, or :data:`~llm_common.catalog.OVERFLOW` where there are too many names already."""
        return self._admitted(ACTION_COUNT, name, OVERFLOW)

    def admitted_http(self, series: HttpSeries) -> HttpSeries:
        """Return ``series``, or the overflow series where there are too many already."""
        return self._admitted(HTTP_REQUESTS, series, HttpSeries(OVERFLOW, OVERFLOW, OVERFLOW, OVERFLOW))

    def _admitted(self, metric: Metric, asked: Asked, overflow: Asked) -> Asked:
        """Return ``asked``, or ``overflow`` where the metric has too many series already, which is logged once."""
        limit, words = self._limits[metric], LIMITS[metric]
        if limit.admits(asked):
            return asked
        if not limit.told:
            limit.told = True
            first = shown(tuple(asked) if isinstance(asked, tuple) else asked)
            self.log_once(
                limit,
                f"{metric.name} has {words.has.format(limit.most)}, which is the limit (max_series); further "
                f"{words.further} are counted together as {OVERFLOW!r}, the first of them {first}. {words.question}",
            )
        return overflow

    def bind_action(self, name: str, findable: bool) -> BoundAction:
        """Ask each backend for its recorder of the action ``name``. A backend that fails is left out, once logged.

        ``findable`` says whether ``current_action()`` must find the action's trackers.
        """
        label = clean_label(name)
        return BoundAction(label, self, self._recorders(ACTION, label), findable)

    def bind_http(self, series: HttpSeries) -> BoundHttp:
        """Ask each backend for its recorder of an HTTP series, as :meth:`bind_action` does for an action."""
        return BoundHttp(self, self._recorders(HTTP, clean_series(series)))

    def bind_metric(self, metric: Metric, values: tuple[str, ...]) -> BoundMetric | None:
        """Return one series of a metric beside the contract, or ``None`` where that is switched off.

        ``values`` are those of the metric's labels but for ``env`` and ``app``. A backend that fails is left out.
        """
        if metric not in self._extras:
            return None
        bound = self._metrics.get((metric, values))
        if bound is None:
            admitted = values
            if metric is LLM_TOKENS:  # the others have series for each action, which are few enough
                admitted = self._admitted(metric, values, (*values[:-1], OVERFLOW))
            labels = (*map(clean_label, admitted), self.settings.env, self.settings.app)
            bound = BoundMetric(self, self._recorders(Question.of_metric(metric), labels))
            if admitted == values:  # else there would be no end of what is kept
                bound = self._metrics.setdefault((metric, values), bound)
        return bound

    def _recorders(self, question: "Question", value: object) -> list[tuple[str, Any]]:
        recorders: list[tuple[str, Any]] = []
        faults: list[BaseException] | None = None
        for backend in self._binders[question.hook]:
            try:
                recorder = self._asked(backend, question, value)
                # Two backends on one registry have the same recorder, which must count once.
                if recorder is not None and not any(bare(recorder) is bare(other) for _, other in recorders):
                    recorders.append((backend, recorder))
            except BaseException as fault:
                faults = self.report_fault(backend, question.hook, fault, faults)
                if backend in self._failed:  # which nothing is in strict mode
                    recorders.append((backend, Watched(self._failed[backend], None)))
        if faults and self.settings.strict:
            raise faults[0]
        return recorders

    def _asked(self, backend: str, question: "Question", value: object) -> object:
        """Return the recorder that one backend has, watched where it failed before."""
        health = self._failed.get(backend)
        if health is None:
            return self._ask(backend, question, value)
        if health.off:
            return Watched(health, None)
        recorder = self._ask(backend, question, value)
        return None if recorder is None else Watched(health, recorder)

    def _ask(self, backend: str, question: "Question", *asked: object) -> object:
        """Return the recorder that one backend and its wrappers have for the last of ``asked``, or ``None``.

        The others are what it was called before wrappers renamed it.
        """
        if len(asked) > MOST_RENAMES:
            raise PluginError(
                f"a wrapper of {question.hook} renames without end: {' as '.join(map(shown, asked[:3]))} and so on; "
                "call bind(other) only for what isn't renamed yet"
            )

        def bind(other: object) -> object:
            cleaned = question.clean(other)
            recorder = self._ask(backend, question, *asked, cleaned)
            return RenamedRecorder(recorder, str(cleaned)) if hasattr(recorder, "ended") else recorder

        recorder = self._binders[question.hook][backend](
            **{**question.given, question.argument: asked[-1]},
            settings=self.settings,
            bind=bind,
            exemplar=self._exemplar,
        )
        return None if recorder is None else checked_recorder(recorder, question.hook, backend)

    def classify(self, exception: BaseException) -> Status:
        """Return the status of an action that ``exception`` ended."""
        hook: HookCaller = self.manager.hook.llm_common_classify_exception
        if hook.get_hookimpls():
            try:
                status = hook(exception=exception)
                if status is not None:
                    return Status(status)
            except BaseException as fault:
                whose = raiser(hook, fault)
                self._note_fault(whose.name if whose else "a plugin", hook.name, fault, "the default status counts")
        return Status.ERROR if isinstance(exception, Exception) else Status.CANCELLED

    def misused(self, problem: str, key: object = "http_tracking") -> None:
        """Raise :class:`TrackingError` in strict mode, else log ``problem``: once per ``key`` as a warning."""
        if self.settings.strict:
            raise TrackingError(problem)
        self.log_once(key, problem)

    def report_fault(
        self,
        backend: str,
        operation: str,
        fault: BaseException,
        faults: list[BaseException] | None = None,
    ) -> list[BaseException]:
        """Take note that ``operation`` of ``backend`` raised ``fault``, and of how the backend does.

        Returns ``faults`` with this one added, for strict mode. Raises ``fault`` itself where it is no fault at all
        (see :func:`~llm_common.bound.stops_program`).
        """
        overflow = isinstance(fault, RecursionError)
        self.overflows += overflow
        self._note_fault(backend, operation, fault)
        if not self.settings.strict and not sys.is_finalizing():
            health = self._failed.get(backend) or self._failed.setdefault(backend, Health(self._forget))
            if health.failed(operation in BIND_HOOKS and not overflow):
                self.log_once(
                    health,
                    f"{backend} failed {MOST_FAULTS} times in a row and is switched off; it is tried again after "
                    f"{FIRST_PAUSE:.0f} s, then less and less often",
                )
        return [*(faults or ()), fault]

    def _note_fault(
        self,
        whose: str,
        operation: str,
        fault: BaseException,
        effect: str = "these measurements of this backend are lost",
    ) -> None:
        """Count a fault, and log it: a warning with traceback once, then at debug level. ``effect`` says what follows.

        Raises ``fault`` itself where it is none.
        """
        if stops_program(fault):
            raise fault
        if sys.is_finalizing():  # modules are being taken apart: whatever fails now is no fault that could be mended
            return
        try:
            words = f"{type(fault).__name__}: {fault}"
        except Exception:
            words = f"{type(fault).__name__}, which can't be shown"
        self.log_once(
            (whose, operation),
            f"{whose}: {operation} raised {words}; the application is not affected, {effect}",
            fault,
        )
        self._count_fault(whose, operation)

    def rendering_failed(self, backend: object) -> None:
        """Count that a backend in force can't show its metrics."""
        for name, one in self._backends.items():
            if one.wrapped is backend:
                self._count_fault(name, "collect")

    def _count_fault(self, whose: str, operation: str) -> None:
        """Count a fault of a backend or plugin on every backend that isn't switched off, on the faulty one too.

        A backend that fails at this as well is left out, once logged; else there would be no end of it.
        """
        thread = get_ident()
        if thread in self._counting:
            return
        try:
            self._counting.add(thread)
            asked = self._admitted(BACKEND_ERRORS, (whose, operation), (OVERFLOW, OVERFLOW))
            for backend, recorder in self._fault_recorders(*asked):
                health = self._failed.get(backend)
                if self._backends[backend] not in self._closed and (health is None or not health.off):
                    try:
                        recorder.record(1)
                    except BaseException as fault:
                        self._note_fault(backend, "record", fault)
        finally:
            self._counting.discard(thread)

    def _fault_recorders(self, whose: str, operation: str) -> list[tuple[str, Any]]:
        """Return every backend's own recorder: that one works here says nothing about how it does otherwise."""
        found = self._fault_counters.get((whose, operation))
        if found is None:
            labels = (*map(clean_label, (whose, operation)), self.settings.env, self.settings.app)
            found, whole = [], True
            for backend in self._binders[FAULTS.hook]:
                try:
                    recorder = self._ask(backend, FAULTS, labels)
                    if recorder is not None and not any(recorder is other for _, other in found):
                        found.append((backend, recorder))
                except BaseException as fault:
                    whole = False  # perhaps it has one the next time
                    self._note_fault(backend, FAULTS.hook, fault)
            if whole:
                found = self._fault_counters.setdefault((whose, operation), found)
        return found

    def _forget(self) -> None:
        self._metrics.clear()
        forget_bindings()

    def log_once(self, key: object, text: str, fault: BaseException | None = None) -> None:
        """Log ``text`` as a warning the first time that ``key`` is seen, then at debug level."""
        level = logging.DEBUG if key in self._seen else logging.WARNING
        self._seen.add(key)
        with suppress(Exception):  # a broken log handler must not reach the application either
            logger.log(level, "%s", text, exc_info=fault)

    def shutdown(self, timeout: float, kept: Sequence[object] = ()) -> None:
        """Let every backend and plugin that isn't among ``kept`` flush and release, within ``timeout`` seconds each."""
        caller: HookCaller = self.manager.hook.llm_common_shutdown
        for plugin in {cast("HookObject", impl.plugin): None for impl in caller.get_hookimpls()}:
            if not any(plugin.wrapped is one for one in kept):
                try:
                    self.manager.subset_hook_caller(
                        "llm_common_shutdown", [one for one in self.manager.get_plugins() if one is not plugin]
                    )(timeout=timeout)
                except BaseException as fault:
                    self._note_fault(plugin.name, caller.name, fault, "what it held back may be lost")
                self._closed.add(plugin)

    def objects(self) -> list[object]:
        """Return every backend and plugin object that is registered."""
        return [cast("HookObject", plugin).wrapped for plugin in self.manager.get_plugins()]


@contextmanager
def errors_named(hook: "HookCaller") -> Iterator[None]:
    """Turn whatever a call of ``hook`` raises into a :class:`PluginError` that names the hook and the plugin."""
    try:
        yield
    except LLMCommonError:
        raise
    except BaseException as problem:
        if stops_program(problem):
            raise
        whose = raiser(hook, problem)
        raise PluginError(
            f"{hook.name} of {f'the {whose}' if whose else 'a plugin'} raised {type(problem).__name__}: {problem}"
        ) from problem


def name_of(item: object) -> str:
    """Return what a backend or plugin that was given as an object is called."""
    try:
        return str(getattr(item, "name", None) or getattr(item, "__name__", None) or type(item).__name__)
    except Exception:  # whatever its attributes raise
        return type(item).__name__


def raiser(hook: "HookCaller", problem: BaseException) -> HookObject | None:
    """Return whose implementation of ``hook`` raised ``problem``, by the traceback: pluggy doesn't tell."""
    import traceback  # only where something went wrong

    codes = [frame.f_code for frame, _ in traceback.walk_tb(problem.__traceback__)]
    for impl in hook.get_hookimpls():
        if getattr(impl.function, "__code__", None) in codes:
            return cast("HookObject", impl.plugin)
    return None


def clean_series(series: HttpSeries) -> HttpSeries:
    """Return ``series`` with labels that are valid Unicode."""
    return HttpSeries(*map(clean_label, series))


class Question(NamedTuple):
    """What backends are asked for: the recorder of an action, of an HTTP series or of another metric's series."""

    hook: str
    argument: str
    """The argument of the hook that says which."""
    clean: Callable[[Any], object] = tuple
    """Makes valid labels of what a wrapper asks for instead."""
    given: Mapping[str, object] = MappingProxyType({})
    """Further arguments of the hook."""

    @classmethod
    def of_metric(cls, metric: Metric) -> "Question":
        """Return the question for the recorder of a series of ``metric``."""
        return cls("llm_common_bind_metric", "values", given={"metric": metric})


ACTION = Question("llm_common_bind_action", "name", clean_label)
HTTP = Question("llm_common_bind_http", "series", clean_series)
FAULTS = Question.of_metric(BACKEND_ERRORS)


class RenamedRecorder:
    """The recorder of an action that a wrapper renamed: the events have the new name."""

    __slots__ = ("_name", "_recorder", "sized")

    def __init__(self, recorder: Any, name: str) -> None:
        self._recorder = recorder
        self._name = name
        self.sized = recorder.sized

    def ended(self, event: ActionEvent) -> object:
        """Pass the event on under the new name."""
        return self._recorder.ended(replace(event, name=self._name))


def checked_recorder(recorder: object, hook: str, backend: str) -> object:
    """Return what ``hook`` returned if it is a recorder; raise :class:`PluginError` that says what is missing else."""
    if hook == "llm_common_bind_metric":
        required, whole = ["record"], "record(amount)"
    elif hook == "llm_common_bind_http":
        required, whole = ["finished"], "finished(seconds, request_bytes, response_bytes)"
    else:
        required = ["ended" if hasattr(recorder, "ended") else "finished", "sized"]
        whole = "finished(status, seconds) and sized(amount)"
    for method in required:
        if not callable(getattr(recorder, method, None)):
            raise PluginError(
                f"{hook} of the backend {backend!r} returned {shown(recorder)}, which has no method {method}(); "
                f"a recorder has {whole}"
            )
    return recorder
