"""Spans: a call, and below it the stages of its work.

Off unless a tracer is installed: then nothing of OpenTelemetry is imported, no span is made and
every function here is one comparison. On, a call has a root span (below the caller's, when they
sent a ``traceparent``), and stages are spans below it. Work of one call that another call's task
does (a shared batch, a shared commit) is a span of its own, linked to the calls that it serves.

Where new spans hang is kept in a context variable that is set and never reset by a token: a
generator may be closed by another task than ran it, and there the token would be refused.

At most ``MOST_SPANS`` spans are made of one call, however long its stream; how many more there
would have been is an attribute of its root. Once the root has ended, nothing is added below it.
Attributes never hold an image, a vector, a purpose, a value of a filter or a secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from service.tracing.tracer import Attributes, Tracer, Value

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = [
    "MOST_SPANS",
    "Leaf",
    "Place",
    "TracedCall",
    "batch",
    "begin_call",
    "here",
    "install",
    "interval",
    "leaf",
    "section",
    "shared",
    "trace_id",
]

MOST_SPANS = 512


class _Trace:
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

    def __init__(self, trace: _Trace, span: Span | None) -> None:
        self.trace = trace
        self.span = span

    def child(
        self, name: str, attributes: Attributes, *, start: int, link: Span | None = None
    ) -> Span | None:
        """A span below; None when the trace is not recorded, full or over."""
        trace = self.trace
        if _tracer is None or self.span is None or trace.over:
            return None
        if trace.made >= MOST_SPANS:
            trace.left_out += 1
            return None
        trace.made += 1
        return _tracer.child(name, self.span, attributes, start=start, link=link)


_tracer: Tracer | None = None
_HERE: ContextVar[Place | None] = ContextVar("span", default=None)


def install(tracer: Tracer | None) -> None:
    """Switch tracing on, or with None off."""
    global _tracer
    _tracer = tracer


def here() -> Place | None:
    """Where a span made now would hang; None: nowhere."""
    if _tracer is None:
        return None
    place = _HERE.get()
    return None if place is None or place.span is None or place.trace.over else place


def trace_id(*, recorded: bool = False) -> str:
    """Hex id of the present trace, empty for none; ``recorded``: only of one that is exported."""
    if _tracer is None:
        return ""
    place = _HERE.get()
    if place is None or (recorded and place.span is None):
        return ""
    return f"{place.trace.root.get_span_context().trace_id:032x}"


class TracedCall:
    """The root span of one call."""

    __slots__ = ("_span", "_trace", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._trace = _Trace(span)
        _HERE.set(Place(self._trace, span if span.is_recording() else None))

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
    if _tracer is None:
        return None
    return TracedCall(_tracer, _tracer.root(name, headers, attributes or {}))


class Leaf:
    """A span around a block that makes no spans of its own; see ``leaf``."""

    __slots__ = ("_name", "_span")

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: Span | None = None

    def note(self, **attributes: Value) -> None:
        """Add attributes, named ``resight.<name>``."""
        if self._span is not None:
            self._span.set_attributes(
                {f"resight.{name}": value for name, value in attributes.items()}
            )

    def __enter__(self) -> Self:
        place = here()
        if place is not None:
            self._span = place.child(self._name, {}, start=time.time_ns())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is None:
            return
        if exc_type is not None and _tracer is not None:
            _tracer.fail(self._span, exc_type.__name__)
        self._span.end()


class _Nothing(Leaf):
    __slots__ = ()

    def __enter__(self) -> Self:
        return self


_NOTHING = _Nothing("")


def leaf(name: str) -> Leaf:
    """``with leaf("audit"): ...``, on any thread that has the caller's context."""
    return _NOTHING if _tracer is None else Leaf(name)


@contextmanager
def section(name: str) -> Iterator[None]:
    """A span around the rest of a task's work on one part of a call, whose spans hang below it."""
    place = here()
    if place is None:
        yield
        return
    span = place.child(name, {}, start=time.time_ns())
    # Where the trace is full, what would hang below must not hang beside it instead.
    yield from _inside(Place(place.trace, span), span)


@contextmanager
def shared(name: str, served: Sequence[Place | None]) -> Iterator[None]:
    """A span of its own around work for several calls, linked to each that is traced."""
    links = _links(served)
    if _tracer is None or not links:
        yield
        return
    span = _tracer.linked(name, links, {"resight.items": len(served)})
    trace = _Trace(span)
    yield from _inside(Place(trace, span), span)


def _inside(place: Place, span: Span | None) -> Iterator[None]:
    before = _HERE.get()
    _HERE.set(place)
    try:
        yield
    except BaseException as error:
        if span is not None and _tracer is not None:
            _tracer.fail(span, type(error).__name__)
        raise
    finally:
        _HERE.set(before)
        if span is not None:
            span.end()


def interval(
    name: str,
    place: Place | None,
    start: int,
    end: int,
    *,
    link: Span | None = None,
    failed: str = "",
    **attributes: Value,
) -> None:
    """A span of the past below ``place``, from ``start`` to ``end`` (ns since the epoch)."""
    if place is None or _tracer is None:
        return
    span = place.child(
        name, {f"resight.{key}": value for key, value in attributes.items()}, start=start, link=link
    )
    if span is not None:
        if failed:
            _tracer.fail(span, failed)
        span.end(end)


def batch(
    served: Sequence[Place | None], start: int, end: int, *, failed: int, size: int
) -> Span | None:
    """The span of an encoder's batch, linked to the calls in it; None when none is traced."""
    links = _links(served)
    if _tracer is None or not links:
        return None
    span = _tracer.linked(
        "batch", links, {"resight.batch_size": size, "resight.images_failed": failed}, start=start
    )
    span.end(end)
    return span


def _links(served: Sequence[Place | None]) -> list[SpanContext]:
    spans = [place.span for place in served if place is not None and place.span is not None]
    return [span.get_span_context() for span in spans]
