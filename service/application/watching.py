"""What is looked at from time to time for the metrics, in the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.application.camera_drift import CameraDrift
from service.application.galleries import Galleries
from service.application.repeating import Repeating
from service.application.run_watch import RunWatch
from service.application.storage_watch import StorageWatch
from service.catalog.store import Catalog
from service.metric_settings import MetricSettings

__all__ = ["Watching"]


class Watching:
    """``start`` on the event loop, ``close`` at the end.

    Args:
        catalog: Where runs and vectors are read.
        galleries: That are looked at.
        data_dir: Whose disk is looked at.
        settings: How often, and what.
        nights: Galleries that nights are expected of.
    """

    def __init__(
        self,
        catalog: Catalog,
        galleries: Galleries,
        *,
        data_dir: Path,
        settings: MetricSettings,
        nights: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self.drift = CameraDrift(catalog, galleries, settings)
        self.runs = RunWatch(catalog, galleries, expected=nights)
        self.storage = StorageWatch(data_dir, catalog)
        self._repeating: list[Repeating] = []

    def start(self) -> None:
        """Begin to look."""
        every = self._settings.refresh_seconds
        self._repeating = [
            Repeating("looking at runs", self.runs.look, interval=every),
            Repeating("looking at the disk", self.storage.look, interval=every),
        ]
        if self._settings.drift_seconds:
            every = self._settings.drift_seconds
            self._repeating.append(Repeating("looking for drift", self.drift.look, interval=every))

    async def close(self) -> None:
        """End it."""
        for repeating in self._repeating:
            await repeating.close()
