"""Exemplars: of the calls that fell into a bucket of a histogram, which one was the last.

Sent in the OpenMetrics format alone, to a scraper that asks for it. An exemplar is no label: it
makes no series. It names the request as answers, logs, traces and the audit do.
"""

from __future__ import annotations

from service import call
from service.tracing.trace import trace_id

__all__ = ["exemplar"]


def exemplar(of: call.Call | None = None) -> dict[str, str] | None:
    """Request id of a call, by default the present one, with the trace id when the trace is
    exported; None where the service works for itself.
    """
    now = of or call.current()
    if now is call.OWN:
        return None
    trace = trace_id(recorded=True)
    if trace:
        return {"request_id": now.request_id, "trace_id": trace}
    return {"request_id": now.request_id}
