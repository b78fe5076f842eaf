"""This process among those that serve the same catalog.

On PostgreSQL there may be several. Each is registered and beats (``membership``), follows the log
(``log_follower``), and serves while its fence is open (``fence``). On SQLite there is one, as the
data directory's lock sees to: it only tries again what its index could not take.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.engine import make_url

from resight.errors import ResightError
from service.application.fence import Fence, elapsed
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.log_follower import LogFollower
from service.application.membership import Membership
from service.application.replica_identity import replica_identity
from service.catalog import replicas
from service.catalog.replicas import Standing
from service.catalog.store import Catalog
from service.replication_settings import ReplicaSettings
from service.telemetry import ERASURES_PENDING

__all__ = ["Replication", "Standpoint"]

logger = logging.getLogger(__name__)

# Between two looks at how far the others have come, while an erasure waits.
LOOK_SECONDS = 0.005
MAX_LOOK_SECONDS = 0.1


class Standpoint(NamedTuple):
    """A replica that lives, and whether its index has applied a change."""

    name: str
    applied: bool


class Replication:
    """Begins with ``start``, ends with ``close``.

    Args:
        catalog: Shared or not.
        galleries: Those of this process.
        settings: Of replicas.
        database_url: Of the catalog.
        data_dir: Of this process, and locked.
    """

    def __init__(
        self,
        catalog: Catalog,
        galleries: Galleries,
        settings: ReplicaSettings,
        *,
        database_url: str,
        data_dir: Path,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self.name = settings.name or socket.gethostname()
        shared = make_url(database_url).get_backend_name() == "postgresql"
        self.fence = Fence(settings.expire_seconds if shared else None)
        self._membership: Membership | None = None
        if shared:
            self._membership = Membership(
                database_url,
                replica_identity(data_dir),
                self.name,
                settings,
                fence=self.fence,
                galleries=galleries,
            )
        self._follower = LogFollower(catalog, galleries, log=self._membership, wait=self._wait)
        # The replicas as they were last read: when, for which gallery.
        self._read: tuple[float, int, list[Standing]] = (float("-inf"), 0, [])
        self._reading = asyncio.Lock()

    def start(self) -> None:
        """Register, catch up, and go on doing so in the background. Blocking.

        Raises:
            Unavailable: the catalog does not answer.
        """
        if self._membership is not None:
            self._catalog.writer.committed = self._membership.bell.ring
            self._membership.register()
            self._follower.look()
        self._follower.start()

    def close(self) -> None:
        """Serve no more: nobody waits for this process any longer. Blocking."""
        self._follower.stop()
        if self._membership is not None:
            self._membership.close()

    def is_alone(self) -> bool:
        """Whether no other process serves this catalog at the moment. Blocking.

        Raises:
            Unavailable: the catalog does not answer.
        """
        if self._membership is None:
            return True
        return not self._membership.others(self._catalog.read_now(replicas.all_replicas))

    async def pending(self, gallery: Gallery, position: int) -> tuple[str, ...]:
        """Wait until every replica that lives has applied a change, for a bounded time.

        Returns:
            Names of those that have not, this one included; they apply it when they can.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.erasure_wait_seconds
        pause = LOOK_SECONDS
        while lacking := await self._lacking(gallery, position):
            left = until - loop.time()
            if left <= 0:
                ERASURES_PENDING.inc()
                logger.warning(
                    "gallery %s: an erasure (change %d) is still to be applied by %s",
                    gallery.name,
                    position,
                    ", ".join(lacking),
                )
                return tuple(lacking)
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, MAX_LOOK_SECONDS)
        return ()

    async def standpoints(self, gallery: Gallery, position: int) -> list[Standpoint]:
        """Wait as ``pending``; then every replica that lives, this one first."""
        await self.pending(gallery, position)
        found = [Standpoint(self.name, gallery.applied >= position)]
        if self._membership is not None:
            others = self._membership.others(await self._standings(gallery))
            found += [Standpoint(other.name, other.position >= position) for other in others]
        return found

    async def _lacking(self, gallery: Gallery, position: int) -> list[str]:
        own = [self.name] if gallery.applied < position else []
        if self._membership is None:
            return own
        others = self._membership.others(await self._standings(gallery))
        return own + [standing.name for standing in others if standing.position < position]

    async def _standings(self, gallery: Gallery) -> list[Standing]:
        """All replicas as they are after this was called; those who wait together read together."""
        asked = elapsed()
        async with self._reading:
            begun, gallery_row, known = self._read
            if begun >= asked and gallery_row == gallery.row:
                return known
            begun = elapsed()
            try:
                known = await self._catalog.read(replicas.all_replicas, gallery.row)
            except ResightError as error:
                logger.warning("it is not known how far other replicas are: %s", error)
                return [known_before._replace(position=-1) for known_before in known]
            self._read = begun, gallery.row, known
            return known

    def _wait(self, stopping: threading.Event) -> None:
        if self._membership is None:
            stopping.wait(self._settings.poll_seconds)
        else:
            self._membership.bell.wait(self._settings.poll_seconds, stopping)
