"""The time that a report is of, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from service.catalog.audit import Selection

__all__ = ["Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` on, before ``end``; None is no bound."""

    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of(cls, wanted: Selection) -> Self:
        """That of a selection of entries."""
        return cls(wanted.start_time, wanted.end_time)

    def holds(self, time: datetime | None) -> bool:
        """Whether something happened within it; not when it has not happened."""
        return time is not None and self.knows(time) and (self.start is None or time >= self.start)

    def knows(self, time: datetime) -> bool:
        """Whether something that happened then was there at the span's end."""
        return self.end is None or time < self.end

    def meets(self, began: datetime, ended: datetime | None) -> bool:
        """Whether something that went on for a time, or still does, did so within it."""
        return self.knows(began) and (ended is None or self.start is None or ended >= self.start)
