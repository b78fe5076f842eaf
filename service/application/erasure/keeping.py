"""Everything of erasures put together, and kept up: those interrupted are gone on with."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from resight.errors import ResightError
from service.application.erasure.backlog import Backlog
from service.application.erasure.completion import Completion
from service.application.erasure.erasures import Erasures
from service.application.erasure.planning import Planning
from service.application.erasure.receipt import Places
from service.application.erasure.removal import Removal
from service.application.foundation import Foundation
from service.application.search import Search
from service.application.unbroken import Unbroken
from service.settings import ServiceSettings
from service.signing import open_signing_key

__all__ = ["ErasureKeeping"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 15.0


class ErasureKeeping:
    """The erasures of all galleries; ``keep`` in the background, ``stop`` at the end.

    Args:
        settings: The service's.
        foundation: What they stand on.
        search: Finds what is like an example.
        blob_threads: Remove images.
        unbroken: Keeps a removal going when its caller leaves.

    Raises:
        InvalidArgument: the signing key cannot be used.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        foundation: Foundation,
        *,
        search: Search,
        blob_threads: Executor,
        unbroken: Unbroken,
    ) -> None:
        catalog, galleries, clock = foundation.catalog, foundation.galleries, foundation.clock
        ledger, replication = foundation.ledger, foundation.replication
        self._replication = replication
        self._removal = Removal(
            catalog=catalog,
            blobs=foundation.blobs,
            blob_threads=blob_threads,
            clock=clock,
            ledger=ledger,
            replication=replication,
            index_files=foundation.index_files,
            batch=settings.governance.erasure_batch_crops,
        )
        self.backlog = Backlog(catalog=catalog, clock=clock)
        self._completion = Completion(
            catalog=catalog,
            galleries=galleries,
            removal=self._removal,
            places=Places.of(settings, ledger=ledger.path, replica=replication.name),
            signing_key=open_signing_key(settings.audit.signing_key_file, settings.data_dir),
            unbroken=unbroken,
            backlog=self.backlog,
            clock=clock,
        )
        self.erasures = Erasures(
            catalog=catalog,
            galleries=galleries,
            planning=Planning(catalog=catalog, search=search, limits=settings.limits),
            completion=self._completion,
            backlog=self.backlog,
            unbroken=unbroken,
            clock=clock,
            limits=settings.limits,
        )

    async def keep(self) -> None:
        """Go on with erasures that were interrupted, until cancelled; failures are logged. At a
        start that is alone at once, otherwise with one that has not moved between two looks.
        """
        first = True
        while True:
            try:
                at_once = first and await asyncio.to_thread(self._replication.is_alone)
                await self.erasures.discard_stale()
                await self._completion.resume(at_once=at_once)
                await self.backlog.look()
            except ResightError as error:
                logger.error("erasures: %s", error)
            except Exception:
                logger.exception("erasures that were interrupted could not be resumed")
            first = False
            await asyncio.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End what is under way after its batch."""
        self._removal.stop()
