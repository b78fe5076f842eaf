"""What becomes of spans and of log lines."""

from __future__ import annotations

from prometheus_client import Counter

from service.telemetry.registry import REGISTRY

__all__ = ["LOG_LINES_LEFT_OUT", "TRACE_SPANS"]

TRACE_SPANS = Counter(
    "resight_trace_spans",
    "Spans ended, by what became of them: exported, failed (the collector did not take them) or "
    "dropped (too many waited). Stays 0 while tracing is off.",
    ("outcome",),
    registry=REGISTRY,
)
LOG_LINES_LEFT_OUT = Counter(
    "resight_log_lines_left_out",
    "Log lines not written because many like them came within a minute; a line says how many.",
    registry=REGISTRY,
)
