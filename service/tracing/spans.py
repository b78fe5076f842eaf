"""Spans below a call: the stages of its work.

While no tracer is installed no span is made and every function here is one comparison. Work of one
call that another call's task does (a shared batch, a shared commit) is a span of its own, linked to
the calls that it serves.

Attributes never hold an image, a vector, a purpose, a value of a filter or a secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from service.tracing import trace
from service.tracing.trace import PLACE, Place, Trace, here
from service.tracing.tracer import Value

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = ["Leaf", "batch", "interval", "leaf", "section", "shared"]


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
        if exc_type is not None and trace.tracer is not None:
            trace.tracer.fail(self._span, exc_type.__name__)
        self._span.end()


class _Nothing(Leaf):
    __slots__ = ()

    def __enter__(self) -> Self:
        return self


_NOTHING = _Nothing("")


def leaf(name: str) -> Leaf:
    """``with leaf("audit"): ...``, on any thread that has the caller's context."""
    return _NOTHING if trace.tracer is None else Leaf(name)


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
    if trace.tracer is None or not links:
        yield
        return
    span = trace.tracer.linked(name, links, {"resight.items": len(served)})
    yield from _inside(Place(Trace(span), span), span)


def _inside(place: Place, span: Span | None) -> Iterator[None]:
    before = PLACE.get()
    PLACE.set(place)
    try:
        yield
    except BaseException as error:
        if span is not None and trace.tracer is not None:
            trace.tracer.fail(span, type(error).__name__)
        raise
    finally:
        PLACE.set(before)
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
    if place is None or trace.tracer is None:
        return
    span = place.child(
        name, {f"resight.{key}": value for key, value in attributes.items()}, start=start, link=link
    )
    if span is not None:
        if failed:
            trace.tracer.fail(span, failed)
        span.end(end)


def batch(
    served: Sequence[Place | None], start: int, end: int, *, failed: int, size: int
) -> Span | None:
    """The span of an encoder's batch, linked to the calls in it; None when none is traced."""
    links = _links(served)
    if trace.tracer is None or not links:
        return None
    span = trace.tracer.linked(
        "batch", links, {"resight.batch_size": size, "resight.images_failed": failed}, start=start
    )
    span.end(end)
    return span


def _links(served: Sequence[Place | None]) -> list[SpanContext]:
    spans = [place.span for place in served if place is not None and place.span is not None]
    return [span.get_span_context() for span in spans]
