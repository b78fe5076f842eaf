"""This process in the register of those that serve one PostgreSQL: it beats, says how far its
indexes are, and keeps its fence.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from service.application.bell import Bell
from service.application.fence import Fence, elapsed
from service.application.galleries import Galleries
from service.application.roll import Roll
from service.catalog import gallery_reads, replicas, schema
from service.catalog.engine import open_engine, unavailable
from service.catalog.replicas import Standing
from service.replication_settings import ReplicaSettings
from service.telemetry import REPLICA_HEARTBEATS, REPLICA_LAG, REPLICAS_LIVE

__all__ = ["Membership"]

logger = logging.getLogger(__name__)

# How long the dead are remembered, for whoever looks what has become of them.
REMEMBERED_SECONDS = 3600.0


class Membership:
    """Begins with ``register``; a ``Log`` for the follower.

    Args:
        database_url: Of a PostgreSQL.
        replica_id: Of this process; no two that run at the same time share one.
        name: What operators call this process.
        settings: Of replicas.
        fence: Kept open while this process beats and keeps up.
        galleries: Whose positions are told.
    """

    def __init__(
        self,
        database_url: str,
        replica_id: UUID,
        name: str,
        settings: ReplicaSettings,
        *,
        fence: Fence,
        galleries: Galleries,
    ) -> None:
        self.replica_id = replica_id
        self.name = name
        self._settings = settings
        self._fence = fence
        self._galleries = galleries
        self._roll = Roll(settings.expire_seconds)
        # Apart from the catalog's connections: a heartbeat waits for no query.
        self._engine = open_engine(_patient(database_url, settings), pool_size=4, writer=True)
        self.bell = Bell(self._engine, self.replica_id)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="replica-beat", daemon=True)
        self._failing = False
        self._read_in = self._reported_in = 0
        self._reported: dict[int, int] = {}

    def register(self) -> None:
        """Become known, and go on beating. From now on erasures wait for this process.

        Raises:
            Unavailable: the database does not answer.
            FailedPrecondition: the schema was changed and this code must not run on it.
        """
        try:
            self.beat(first=True)
        except SQLAlchemyError as error:
            raise unavailable(error) from error
        self._thread.start()

    def close(self) -> None:
        """Be known no longer; not while the log is followed."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.bell.close()
        try:
            with self._engine.begin() as connection:
                replicas.unregister(connection, self.replica_id)
        except SQLAlchemyError as error:
            logger.warning("erasures wait for this replica until its heartbeat expires: %s", error)
        self._engine.dispose()

    def beat(self, *, first: bool = False) -> None:
        """One heartbeat; the first takes the place of whoever had this id before.

        Raises:
            SQLAlchemyError: it was not stored, or nobody knows.
            FailedPrecondition: this code must not run on the schema any longer.
        """
        begun = elapsed()
        with self._engine.begin() as connection:
            anew = first or not replicas.beat(connection, self.replica_id)
            if anew:
                revision = schema.check(connection)
                replicas.register(connection, self.replica_id, self.name, revision)
        self._fence.beaten(begun, anew=anew)
        with self._engine.begin() as connection:
            forgotten = replicas.forget(connection, dead_seconds=self._remembered)
            known = replicas.all_replicas(connection)
        if forgotten:
            logger.info("replicas long dead are forgotten: %s", ", ".join(forgotten))
        REPLICAS_LIVE.set(len(self._roll.alive(known)))

    def others(self, known: list[Standing]) -> list[Standing]:
        """Those of the replicas just read that are alive and not this one."""
        alive = self._roll.alive(known)
        return [standing for standing in alive if standing.replica_id != self.replica_id]

    def newest(self) -> Mapping[int, int]:
        """Newest position of every gallery of the catalog, by its row."""
        # Read first: what is newest then was there in this term, or before it.
        self._read_in = self._fence.term
        with self._engine.connect() as connection:
            return {row: position for row, _, position in gallery_reads.positions(connection)}

    def followed(
        self, applied: Mapping[int, int], *, caught_up: bool, unopened: Mapping[int, int]
    ) -> None:
        """Open the fence when this process has caught up, and tell how far it is."""
        if caught_up:
            self._fence.caught_up(self._read_in)
        if self._reported_in != self._read_in:
            self._reported.clear()
        # Nobody need wait for what is not served here; when it is opened it is filled afresh.
        now = dict(unopened) | {gallery.row: gallery.applied for gallery in self._galleries.all()}
        fresh = dict(now.items() - self._reported.items())
        if fresh or applied:
            with self._engine.begin() as connection:
                _measure(connection, applied)
                if fresh:
                    replicas.report(connection, self.replica_id, fresh)
            self._reported, self._reported_in = now, self._read_in

    @property
    def _remembered(self) -> float:
        return max(REMEMBERED_SECONDS, 10 * self._settings.expire_seconds)

    def _beat_on(self) -> None:
        while not self._stopping.wait(self._settings.heartbeat_seconds):
            try:
                self.beat()
            except Exception as error:
                REPLICA_HEARTBEATS.labels("failed").inc()
                if not self._failing:
                    logger.warning("no heartbeat could be stored; tried again: %s", error)
                self._failing = True
            else:
                REPLICA_HEARTBEATS.labels("stored").inc()
                self._failing = False


def _measure(connection: Connection, applied: Mapping[int, int]) -> None:
    """The lag of the oldest change of each gallery that was just applied."""
    for gallery_row, before in applied.items():
        age = replicas.age_of_change(connection, gallery_row, before + 1)
        if age is not None:
            REPLICA_LAG.observe(max(0.0, age))


def _patient(database_url: str, settings: ReplicaSettings) -> str:
    """With bounds after which a silent network counts as a broken connection."""
    url = make_url(database_url)
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        seconds = max(2, round(settings.expire_seconds / 2))
        bounds = {"connect_timeout": str(seconds), "tcp_user_timeout": str(seconds * 1000)}
        url = url.update_query_dict(
            {name: value for name, value in bounds.items() if name not in url.query}
        )
    return url.render_as_string(hide_password=False)
