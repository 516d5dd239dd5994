"""The hooks that a backend or plugin may implement, marked with ``llm_common.hookimpl``.

None of them is on the hot path: a hook is called when a backend is created, when an action name or an HTTP series is
first seen, or when a block is left by an exception. A plugin names only the arguments that it wants.
"""

from typing import TYPE_CHECKING

import pluggy

from llm_common.catalog import Metric
from llm_common.contract import (
    ActionEventRecorder,
    ActionRecorder,
    ExemplarSource,
    HttpRecorder,
    HttpSeries,
    MetricRecorder,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_common.settings import Settings

PROJECT = "llm_common"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def llm_common_create_backend(name: str, settings: "Settings") -> object | None:
    """Return the backend called ``name``, an object with hook implementations, or ``None`` if it is another's.

    Called once for each backend name in the settings, at ``configure()`` or first use. What it raises is shown as a
    :class:`~llm_common.errors.PluginError`.
    """


@hookspec(firstresult=True)
def llm_common_bind_action(
    name: str,
    settings: "Settings",
    bind: "Callable[[str], ActionRecorder | ActionEventRecorder | None]",
    exemplar: ExemplarSource | None,
) -> ActionRecorder | ActionEventRecorder | None:
    """Return the recorder for the action ``name``, or ``None`` to leave the action unrecorded.

    Called for each pair of backend and action name when the action is first used: once, or once in each of several
    threads that do so at the same moment. Called again after the configuration changed, and some time after a fault.
    ``name`` is valid Unicode without surrogates; ``settings`` has the values of the labels ``env`` and ``app``. A
    wrapper around it can drop, rename or sample actions: it returns ``None``, or ``bind(other_name)``, which asks the
    same backend for another action's recorder, or a recorder of its own. ``exemplar`` is the source of exemplars, for
    backends that show them; ``None`` where there is none, so that a backend which looks at it here has nothing to ask
    for while it records.
    """


@hookspec(firstresult=True)
def llm_common_bind_http(
    series: HttpSeries,
    settings: "Settings",
    bind: "Callable[[HttpSeries], HttpRecorder | None]",
    exemplar: ExemplarSource | None,
) -> HttpRecorder | None:
    """Return the recorder for the HTTP exchanges of ``series``, or ``None`` to leave them unrecorded.

    Called for each pair of backend and series when the series is first seen, as ``llm_common_bind_action`` is for
    actions: perhaps in several threads at once, and again after the configuration changed. The labels are valid Unicode
    without surrogates; ``settings`` has the values of the labels ``env`` and ``app``. ``bind(other_series)`` asks the
    same backend for another series' recorder, for wrappers. ``exemplar`` is the source of exemplars, or ``None``.
    """


@hookspec(firstresult=True)
def llm_common_bind_metric(metric: Metric, values: tuple[str, ...], settings: "Settings") -> MetricRecorder | None:
    """Return the recorder for one series of a metric beside the contract, or ``None`` to leave it unrecorded.

    Called only for metrics that ``settings.extra_metrics`` switches on, and for the faults of backends: for each pair
    of backend and series when the series is first seen, as ``llm_common_bind_action`` is. ``values`` are those of
    ``metric.labels``, in that order, valid Unicode without surrogates. A backend without it shows the metrics of the
    contract alone.
    """


@hookspec(firstresult=True)
def llm_common_exemplar_source(settings: "Settings") -> ExemplarSource | None:
    """Return what tells the labels of an exemplar, such as the trace that is active, or ``None``.

    Called once for each configuration, before anything is bound; what it returns is then called whenever a backend that
    shows exemplars records. It may raise: the fault is logged, and the measurement counts without an exemplar.
    """


@hookspec(firstresult=True)
def llm_common_classify_exception(exception: BaseException) -> Status | None:
    """Return the status of an action that is left by ``exception``, or ``None`` for the default.

    Called only when a block is left by an exception. The default is ``error`` for an :class:`Exception` and
    ``cancelled`` for any other :class:`BaseException`.
    """


@hookspec(historic=True)
def llm_common_configured(settings: "Settings") -> None:
    """Take note of the settings in force; called after the backends were created, before anything is recorded."""


@hookspec
def llm_common_shutdown(timeout: float) -> None:
    """Flush and release what is held, within ``timeout`` seconds.

    Called at exit, by ``shutdown()``, and when another configuration takes over. The object may be called afterwards
    by actions that were under way.
    """
