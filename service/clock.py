"""The machine's clock."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["SystemClock"]


class SystemClock:
    """The time of day as this machine knows it."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        return datetime.now(UTC)
