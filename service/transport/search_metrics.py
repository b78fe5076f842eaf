"""Counts how searches were answered, whichever transport asked."""

from __future__ import annotations

from service.domain.query import SearchAnswer
from service.telemetry import SEARCH_MODE, SEARCH_ROWS_SCANNED

__all__ = ["counted"]


def counted(answer: SearchAnswer) -> SearchAnswer:
    """The answer, its mode and rows counted."""
    SEARCH_MODE.labels(answer.mode.value).inc()
    SEARCH_ROWS_SCANNED.observe(answer.rows_scanned)
    return answer
