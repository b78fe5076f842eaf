"""The SDK of OpenTelemetry: which calls are recorded, and how their spans reach a collector.

Spans are queued (``MOST_WAITING``) and sent in batches by a thread of their own, over OTLP/HTTP;
what finds no room is dropped and what the collector does not take is lost, both counted, and no
call ever waits for either. Imported only when tracing is on.

A call is recorded when the caller's ``traceparent`` says so; without one, the given share is. A
span that serves several calls is recorded when one of them is.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util import types

from resight import __version__
from service.telemetry import TRACE_SPANS
from service.tracing.trace import install
from service.tracing.tracer import Attributes

__all__ = ["MOST_WAITING", "Exporting"]

MOST_WAITING = 2048
_BATCH = 256
_DELAY_MS = 1000
_ATTEMPT_SECONDS = 5.0
_FLUSH_SECONDS = 3.0
_EXPORTED = TRACE_SPANS.labels("exported")
_FAILED = TRACE_SPANS.labels("failed")
_DROPPED = TRACE_SPANS.labels("dropped")


class Exporting:
    """Spans on their way to ``endpoint``; the process's tracing until ``stop``.

    Args:
        endpoint: URL of an OTLP/HTTP collector; without a path, ``/v1/traces`` is added.
        ratio: Share of the calls recorded whose callers did not decide it.
    """

    def __init__(self, endpoint: str, *, ratio: float) -> None:
        self._exporter = _Counted(OTLPSpanExporter(_traces(endpoint), timeout=_ATTEMPT_SECONDS))
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MOST_WAITING,
            schedule_delay_millis=_DELAY_MS,
            max_export_batch_size=_BATCH,
        )
        self._provider = TracerProvider(
            sampler=_Sampling(ratio),
            resource=Resource.create(
                {
                    "service.name": "resight",
                    "service.version": __version__,
                    "service.instance.id": uuid4().hex,
                }
            ),
            span_limits=SpanLimits(max_links=MOST_WAITING),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Bounded(self._processor, self._exporter))
        install(_Otlp(self._provider.get_tracer("resight", __version__)))

    def stop(self) -> None:
        """Switch tracing off; send what waits, for a few seconds at most. Blocks."""
        install(None)
        flushing = threading.Thread(target=self._processor.force_flush, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)
        # Ends the attempt that runs; what is left fails at once, and is counted.
        self._exporter.shutdown()
        self._processor.shutdown()  # type: ignore[no-untyped-call]


class _Sampling(Sampler):
    """See the module's page."""

    def __init__(self, ratio: float) -> None:
        self._calls = ParentBased(TraceIdRatioBased(ratio))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: types.Attributes = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        """By the linked spans where there are any."""
        serves = any(link.context.trace_flags.sampled for link in links or ())
        sampler = ALWAYS_ON if serves else self._calls
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        """For people."""
        return "as the calls that it serves, others as their parents or by ratio"


class _Otlp:
    """Implements `Tracer`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def root(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> trace.Span:
        parent = self._propagator.extract(headers, Context())
        return self._tracer.start_span(
            name, parent, kind=trace.SpanKind.SERVER, attributes=attributes
        )

    def linked(
        self,
        name: str,
        to: Sequence[trace.SpanContext],
        attributes: Attributes,
        *,
        start: int | None = None,
    ) -> trace.Span:
        links = [trace.Link(context) for context in to]
        return self._tracer.start_span(
            name, Context(), attributes=attributes, links=links, start_time=start
        )

    def child(
        self,
        name: str,
        below: trace.Span,
        attributes: Attributes,
        *,
        start: int,
        link: trace.Span | None,
    ) -> trace.Span:
        return self._tracer.start_span(
            name,
            trace.set_span_in_context(below, Context()),
            attributes=attributes,
            links=None if link is None else [trace.Link(link.get_span_context())],
            start_time=start,
        )

    def fail(self, span: trace.Span, kind: str) -> None:
        # The kind alone: a message may repeat what the caller sent.
        span.set_attribute("error.type", kind)
        span.set_status(trace.Status(trace.StatusCode.ERROR))


class _Counted(SpanExporter):
    """Counts what becomes of spans, and knows how many wait."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._waiting = 0

    def enter(self) -> bool:
        """Take a place in the queue; False when it is full."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                return False
            self._waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._waiting -= len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            counter = _EXPORTED if result is SpanExportResult.SUCCESS else _FAILED
            counter.inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Bounded(SpanProcessor):
    """Passes ended spans on while there is room."""

    def __init__(self, processor: SpanProcessor, exporter: _Counted) -> None:
        self._processor = processor
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._exporter.enter():
            self._processor.on_end(span)
        else:
            _DROPPED.inc()


def _traces(endpoint: str) -> str:
    scheme, _, rest = endpoint.partition("://")
    host, _, path = rest.partition("/")
    return endpoint if path.strip("/") else f"{scheme}://{host}/v1/traces"
