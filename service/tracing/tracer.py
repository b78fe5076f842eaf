"""What makes spans: a port, so that nobody imports OpenTelemetry who does not trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = ["Attributes", "Tracer", "Value"]

Value = str | bool | int | float
Attributes = Mapping[str, Value]


class Tracer(Protocol):
    """Makes spans; see ``service.tracing.exporting``."""

    def root(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Span:
        """A span of a call, below the one that ``headers`` name."""
        ...

    def linked(
        self,
        name: str,
        to: Sequence[SpanContext],
        attributes: Attributes,
        *,
        start: int | None = None,
    ) -> Span:
        """A root span that serves several traces."""
        ...

    def child(
        self, name: str, below: Span, attributes: Attributes, *, start: int, link: Span | None
    ) -> Span:
        """A span below another, begun at ``start`` (ns since the epoch)."""
        ...

    def fail(self, span: Span, kind: str) -> None:
        """Mark a span as failed."""
        ...
