"""The sweep of images that belong to no crop, once in the background of a start."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial

from service.application.blob_sweep import BlobsInFlight, SweepReport, sweep
from service.application.replication import Replication
from service.catalog.store import Catalog
from service.domain.ports import BlobStore

__all__ = ["Sweeping"]

logger = logging.getLogger(__name__)


class Sweeping:
    """``start`` on the event loop, ``stop`` and then ``finished`` at the end.

    Args:
        catalog: Names the images of crops.
        blobs: Where images are.
        in_flight: Those of this process.
        replication: Tells whether another process serves the catalog.
        seconds: After which what another process had in flight has landed.

    Attributes:
        report: What was found; None before the end, and when it failed.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: BlobStore,
        in_flight: BlobsInFlight,
        replication: Replication,
        seconds: float,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._in_flight = in_flight
        self._replication = replication
        self._seconds = seconds
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.report: SweepReport | None = None

    def start(self) -> None:
        """Begin it."""
        self._task = asyncio.create_task(self._sweep())

    def stop(self) -> None:
        """Wait no longer for what others may have in flight."""
        self._stopping.set()

    async def finished(self) -> None:
        """Wait for its end."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _sweep(self) -> None:
        try:
            self.report = await asyncio.to_thread(
                partial(
                    sweep,
                    self._catalog,
                    self._blobs,
                    self._in_flight,
                    is_alone=self._replication.is_alone,
                    settle=lambda: not self._stopping.wait(self._seconds),
                )
            )
        except Exception:
            logger.exception("the blob store could not be swept; it is tried at the next start")
