"""One call's trace: its root span, and the place in it where new spans hang.

Off unless a tracer is installed: then nothing of OpenTelemetry is imported and nothing is made. On,
a call has a root span (below the caller's, when they sent a ``traceparent``).

The place is kept in a context variable that is set and never reset by a token: a generator may be
closed by another task than ran it, and there the token would be refused.

At most ``MOST_SPANS`` spans are made of one call, however long its stream; how many more there
would have been is an attribute of its root. Once the root has ended, nothing is added below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from service.tracing.tracer import Attributes, Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = [
    "MOST_SPANS",
    "PLACE",
    "Place",
    "Trace",
    "TracedCall",
    "begin_call",
    "here",
    "install",
    "trace_id",
]

MOST_SPANS = 512


class Trace:
    """What one call has of spans."""

    __slots__ = ("left_out", "made", "over", "root")

    def __init__(self, root: Span) -> None:
        self.root = root
        self.made = 0
        self.left_out = 0
        self.over = False


class Place:
    """Where new spans hang; without ``span`` none are made there."""

    __slots__ = ("span", "trace")

    def __init__(self, trace: Trace, span: Span | None) -> None:
        self.trace = trace
        self.span = span

    def child(
        self, name: str, attributes: Attributes, *, start: int, link: Span | None = None
    ) -> Span | None:
        """A span below; None when the trace is not recorded, full or over."""
        trace = self.trace
        if tracer is None or self.span is None or trace.over:
            return None
        if trace.made >= MOST_SPANS:
            trace.left_out += 1
            return None
        trace.made += 1
        return tracer.child(name, self.span, attributes, start=start, link=link)


# Always read as an attribute of this module: it changes.
tracer: Tracer | None = None
PLACE: ContextVar[Place | None] = ContextVar("span", default=None)


def install(given: Tracer | None) -> None:
    """Switch tracing on, or with None off."""
    global tracer
    tracer = given


def here() -> Place | None:
    """Where a span made now would hang; None: nowhere."""
    if tracer is None:
        return None
    place = PLACE.get()
    return None if place is None or place.span is None or place.trace.over else place


def trace_id(*, recorded: bool = False) -> str:
    """Hex id of the present trace, empty for none; ``recorded``: only of one that is exported."""
    if tracer is None:
        return ""
    place = PLACE.get()
    if place is None or (recorded and place.span is None):
        return ""
    return f"{place.trace.root.get_span_context().trace_id:032x}"


class TracedCall:
    """The root span of one call."""

    __slots__ = ("_span", "_trace", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._trace = Trace(span)
        PLACE.set(Place(self._trace, span if span.is_recording() else None))

    @property
    def traceresponse(self) -> str:
        """Value of the header that tells the caller which trace it is (W3C Trace Context 2)."""
        at = self._span.get_span_context()
        return f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"

    def end(self, name: str, attributes: Attributes, *, failed: str = "") -> None:
        """End it; ``failed`` is the kind of failure of ours, empty for none."""
        span, trace = self._span, self._trace
        trace.over = True
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(dict(attributes))
            if trace.left_out:
                span.set_attribute("resight.spans_left_out", trace.left_out)
            if failed:
                self._tracer.fail(span, failed)
        span.end()


def begin_call(
    name: str, headers: Mapping[str, str], attributes: Attributes | None = None
) -> TracedCall | None:
    """Begin the span of a call that this task answers; None while tracing is off.

    Args:
        name: May be given better at the end.
        headers: ``traceparent`` and ``tracestate``, where the caller sent them.
        attributes: Of the span.
    """
    if tracer is None:
        return None
    return TracedCall(tracer, tracer.root(name, headers, attributes or {}))
