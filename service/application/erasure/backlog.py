"""Erasures that are not finished, as the metrics show them."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from resight.errors import ResightError
from service.catalog import erasure_reads
from service.catalog.store import Catalog
from service.domain.erasure import ErasureState
from service.domain.ports import Clock
from service.telemetry import ERASURE_OPEN, ERASURE_OVERDUE

__all__ = ["Backlog"]

logger = logging.getLogger(__name__)


class Backlog:
    """How many are planned and running, and since when the oldest of these is."""

    def __init__(self, *, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._open: dict[str, int] = {}
        self._oldest: datetime | None = None

    async def look(self) -> None:
        """Count them again; while the catalog cannot be read the last counts stay."""
        try:
            found: Any = await self._catalog.read(erasure_reads.open_erasures)
        except ResightError as error:
            logger.warning("it is not known which erasures are open: %s", error)
            return
        self._open, self._oldest = found

    def show(self) -> None:
        """Bring the gauges up to date; the age grows on while the catalog cannot be read."""
        for state in (ErasureState.PLANNED, ErasureState.RUNNING):
            ERASURE_OPEN.labels(state.value).set(self._open.get(state.value, 0))
        age = 0.0 if self._oldest is None else (self._clock.now() - self._oldest).total_seconds()
        ERASURE_OVERDUE.set(max(0.0, age))
