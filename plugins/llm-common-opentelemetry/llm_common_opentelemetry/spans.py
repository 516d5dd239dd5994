"""Which span a measurement belongs to."""

from opentelemetry.context import Context, get_current
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id, get_current_span


def sampled_span(context: Context) -> SpanContext | None:
    """Return the span that is active in ``context``, or ``None`` where there is none or it is not sampled."""
    span = get_current_span(context).get_span_context()
    return span if span.is_valid and span.trace_flags.sampled else None


def active_trace() -> dict[str, str] | None:
    """Return the labels of an exemplar, ``trace_id`` and ``span_id`` in hexadecimal, or ``None``.

    ``None`` stands for no active span and for one that is not sampled: nobody could find its trace.
    """
    context = get_current()
    span = sampled_span(context) if context else None  # most actions of most applications run in no context at all
    if span is None:
        return None
    return {"trace_id": format_trace_id(span.trace_id), "span_id": format_span_id(span.span_id)}
