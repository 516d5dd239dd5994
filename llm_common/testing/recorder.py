"""What a test sees of the metrics: events, values in the documented metric language, and assertions over both."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isclose
from typing import TYPE_CHECKING

from llm_common.backends.memory import EndedRecord, HttpRecord, MemoryBackend, Record
from llm_common.catalog import EXTRA_METRICS, Buckets
from llm_common.contract import ActionEvent, HttpExchange, Status
from llm_common.dispatch import override
from llm_common.settings import clean_label
from llm_common.testing.language import action_status, check_http_labels, text, value

if TYPE_CHECKING:
    from pathlib import Path

    from llm_common.monitoring.options import Options

ANY = object()
"""Stands for "whatever it is" where ``None`` has a meaning of its own."""


class RecordedMetrics:
    """The metrics recorded in one test, or in one part of it. Reading takes nothing away."""

    def __init__(self, backend: MemoryBackend, buckets: Buckets | None = None) -> None:
        self._backend = backend
        self._buckets = buckets or Buckets()
        self._start = 0
        self._end: int | None = None

    @property
    def _records(self) -> Sequence[Record]:
        return self._backend.records[self._start : self._end]

    @property
    def events(self) -> list[ActionEvent]:
        """The actions that ended, in that order, as plain data that compares with ``==``; seconds are not compared."""
        return [record.event for record in self._records if isinstance(record, EndedRecord)]

    @property
    def exchanges(self) -> list[HttpExchange]:
        """The HTTP exchanges that ended, in that order, as plain data that compares with ``==`` but for the seconds."""
        return [record.exchange for record in self._records if isinstance(record, HttpRecord)]

    @contextmanager
    def delta(self) -> "Iterator[RecordedMetrics]":
        """Look at one part of a test: what is recorded inside the ``with`` block, also after it has ended."""
        part = RecordedMetrics(self._backend, self._buckets)
        part._start = len(self._backend.records)
        try:
            yield part
        finally:
            part._end = len(self._backend.records)

    def assert_action(
        self, name: str, *, status: Status | str | None = None, times: int = 1, size: float | object = ANY
    ) -> None:
        """Assert that the action ``name`` ended exactly ``times`` times, of those with this ``status`` and ``size``.

        ``status`` is ``"ok"``, ``"error"`` or ``"cancelled"``, any by default; ``size`` the sum of what the action gave
        to ``tracker.size()``, ``None`` for none, anything by default. Raises :class:`AssertionError` that says what was
        recorded, and :class:`ValueError` for a status that doesn't exist.
        """
        __tracebackhide__ = True
        wanted = None if status is None else action_status(status)
        name = clean_label(text(name, 'the action\'s name, as in assert_action("menu_handler")'))
        named = [event for event in self.events if event.name == name]
        matching = [
            event for event in named if wanted in (None, event.status) and (size is ANY or _same(event.size, size))
        ]
        if len(matching) == times:
            return
        conditions = [f"status={wanted}"] * (wanted is not None) + [f"size={size}"] * (size is not ANY)
        expected = f"{name!r} {_times(times)}" + (f" with {', '.join(conditions)}" if conditions else "")
        self._fail(f"expected the action {expected}; recorded {_times(len(matching))}", name, named)

    def assert_no_action(self, name: str) -> None:
        """Assert that the action ``name`` did not end, with whatever status."""
        __tracebackhide__ = True
        self.assert_action(name, times=0)

    def assert_http(
        self,
        *,
        resource: str | None = None,
        method: str | None = None,
        status: int | str | None = None,
        app_type: str | None = None,
        times: int = 1,
    ) -> None:
        """Assert that exactly ``times`` HTTP exchanges ended that have these labels; those left out match any value.

        ``status`` is a code, as a number or as text, or ``"error"``, ``"timeout"`` or ``"cancelled"``. Raises
        :class:`AssertionError` that says what was recorded, and :class:`ValueError` for what no exchange can have.
        """
        __tracebackhide__ = True
        code = str(status) if isinstance(status, int) else status
        given = {"resource": resource, "method": method, "status": code, "app_type": app_type}
        wanted = {label: clean_label(text(one, label)) for label, one in given.items() if one is not None}
        check_http_labels(wanted)
        matching = [
            one for one in self.exchanges if all(getattr(one, label) == value for label, value in wanted.items())
        ]
        if len(matching) == times:
            return
        conditions = ", ".join(f"{label}={one!r}" for label, one in wanted.items())
        lines = [
            f"expected an HTTP exchange {_times(times)}" + (f" with {conditions}" if conditions else ""),
            f"recorded {_times(len(matching))}; recorded in all:",
            *(_exchange_lines(self.exchanges) or ["  no HTTP exchange at all"]),
        ]
        raise AssertionError("\n".join(lines))

    def metric_value(self, metric: str, **labels: str) -> float:
        """Return the value of a series in the documented metric language, 0 where nothing was recorded.

        ``metric`` is a counter's name, or a histogram's with ``_count``, ``_sum`` (seconds) or ``_bucket`` (which takes
        the label ``le``). Labels that are left out match any value, and all series that match are added up, as
        PromQL's ``sum`` would.

        Raises :class:`ValueError` for a metric or label that the catalogue doesn't have.
        """
        return value(metric, labels, self._records, self._buckets)

    def assert_metric(self, metric: str, expected: float, **labels: str) -> None:
        """Assert that :meth:`metric_value` of these arguments is ``expected``; seconds are compared approximately."""
        __tracebackhide__ = True
        found = self.metric_value(metric, **labels)
        same = isclose(found, expected, rel_tol=1e-9) if metric.endswith("_sum") else found == expected
        if not same:
            series = f"{metric}{{{', '.join(f'{label}={text!r}' for label, text in labels.items())}}}"
            name = clean_label(labels.get("name", ""))
            named = [event for event in self.events if not name or event.name == name]
            message = f"expected {series} to be {expected}; it is {found:g}"
            if labels.keys() & {"env", "app"}:
                places = sorted({f"env={record.env!r}, app={record.app!r}" for record in self._records})
                message += f" (recorded with {'; '.join(places) or 'nothing'})"
            self._fail(message, name, named)

    def assert_alert_fires(
        self,
        alert: str,
        *,
        for_: str,
        every: str = "1m",
        options: "Options | None" = None,
        rules: "Path | str | None" = None,
        **labels: str,
    ) -> None:
        """Assert that an alert fires where what was recorded happens ``every`` so often, and does so ``for_`` so long.

        Before that it happens for as long as the alert looks back. For an alert about silence (``TaskStopped``,
        ``HandlerTrafficVanished``) that is all: then nothing happens ``for_`` so long. ``labels`` are those of the
        alert, such as the action's ``name``; ``options`` has other thresholds; ``rules`` is the file or folder of the
        rules that are in force, instead of those of this package. promtool evaluates them, the tool of Prometheus.

        Raises :class:`AssertionError` that says what the condition came to, and
        :class:`~llm_common.errors.ConfigurationError` for an alert that doesn't exist, where nothing was recorded that
        it asks for, and where promtool is missing.
        """
        __tracebackhide__ = True
        self._assert_alert(alert, True, for_, every, options, rules, labels)

    def assert_alert_silent(
        self,
        alert: str,
        *,
        for_: str,
        every: str = "1m",
        options: "Options | None" = None,
        rules: "Path | str | None" = None,
        **labels: str,
    ) -> None:
        """Assert that an alert doesn't fire where :meth:`assert_alert_fires` would assert that it does."""
        __tracebackhide__ = True
        self._assert_alert(alert, False, for_, every, options, rules, labels)

    def _assert_alert(
        self,
        alert: str,
        fires: bool,
        for_: str,
        every: str,
        options: "Options | None",
        rules: "Path | str | None",
        labels: Mapping[str, str],
    ) -> None:
        __tracebackhide__ = True
        from llm_common.testing.alerts import judge

        verdict = judge(alert, self._records, self._buckets, for_, every, options, rules, labels)
        if bool(verdict.firing) is fires:
            return
        which = "".join(f", {label}={value!r}" for label, value in labels.items())
        lines = [
            f"expected the alert {alert}{which} {'to fire' if fires else 'not to fire'} for_={for_}; "
            + (f"it fires: {verdict.firing}" if verdict.firing else "it doesn't"),
            *verdict.explanation,
            f"recorded, and taken to happen every {every}:",
            *_lines(self.events),
            *_exchange_lines(self.exchanges),
        ]
        raise AssertionError("\n".join(lines))

    def report(self) -> str:
        """Return everything recorded as text, equal events counted together."""
        return "\n".join([*_lines(self.events), *_exchange_lines(self.exchanges)]) or "nothing was recorded"

    def __repr__(self) -> str:
        return f"<RecordedMetrics: {self.report()}>"

    def _fail(self, message: str, name: str, named: Sequence[ActionEvent]) -> None:
        __tracebackhide__ = True
        lines = [message]
        if named and name:
            lines += [f"of {name!r} was recorded:", *_lines(named)]
        else:
            names = sorted({event.name for event in self.events})
            close = difflib.get_close_matches(name, names, n=1)
            if close:
                lines.append(f"the nearest miss: {close[0]!r}")
            lines += [
                "recorded in all:",
                *(_lines(self.events) or ["  no action at all"]),
                *_exchange_lines(self.exchanges),
            ]
        raise AssertionError("\n".join(lines))


def _same(size: float | None, wanted: object) -> bool:
    if size is None or not isinstance(wanted, int | float):
        return size is wanted
    return isclose(size, wanted, rel_tol=1e-9)


def _times(number: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _lines(events: Sequence[ActionEvent]) -> list[str]:
    shown: Counter[tuple[str, str, str, str]] = Counter()
    for event in events:
        size = "" if event.size is None else f" size={event.size:g}"
        shown[event.name, str(event.status), size, f" ({event.error_name})" if event.error_name else ""] += 1
    width = max((len(name) for name, *_ in shown), default=0)
    return [
        f"  {name:{width}}  {status:9}  {_times(number)}{size}{error}"
        for (name, status, size, error), number in shown.items()
    ]


def _exchange_lines(exchanges: Sequence[HttpExchange]) -> list[str]:
    shown = Counter((one.app_type, one.method, one.resource, one.status) for one in exchanges)
    return [
        f"  {app_type}  {method} {resource}  {status}  {_times(number)}"
        for (app_type, method, resource, status), number in shown.items()
    ]


@contextmanager
def record_metrics(*, strict: bool = True) -> Iterator[RecordedMetrics]:
    """Record every action of this process for the length of a ``with`` block, and restore what was there before.

    Works for decorators that were applied at import, in threads and in asyncio tasks. Nested blocks record to the
    innermost. ``strict`` makes a tracking fault raise, as tests want it. The metrics beside the contract are recorded
    too, whatever the settings say.
    """
    backend = MemoryBackend()
    with override(backends=(backend,), strict=strict, extra_metrics=tuple(EXTRA_METRICS)) as pipeline:
        yield RecordedMetrics(backend, pipeline.settings.buckets)
