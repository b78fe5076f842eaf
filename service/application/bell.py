"""A bell between processes: whoever has changed the log rings it, so that nobody waits for a poll.

PostgreSQL's LISTEN and NOTIFY. A ring is a hint and may be lost (a broken connection, a pool that
shares connections between clients): polling finds what a ring did not tell. It is rung after the
commit on a connection of its own, because PostgreSQL lets transactions that notify commit one
after the other.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, select

__all__ = ["Bell"]

logger = logging.getLogger(__name__)

CHANNEL = "resight_log"

# How late the end of the process may be noticed.
MAX_DEAF_SECONDS = 0.25


class Bell:
    """Rings for changes of this process, and hears those of others.

    Args:
        engine: With a connection to spare for listening and one for ringing.
        replica_id: Of this process: its own rings are not heard.
    """

    def __init__(self, engine: Engine, replica_id: UUID) -> None:
        self._engine = engine
        self._own = replica_id.hex
        self._changed = threading.Event()
        self._stopping = False
        self._listening: Any = None
        self._deaf = False
        self._thread = threading.Thread(target=self._run, name="replica-bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """The log has changed. Returns at once; rings that wait become one."""
        self._changed.set()

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        """Return when another process rings, or after so many seconds."""
        until = time.monotonic() + seconds
        try:
            listening = self._listener()
            while not stopping.is_set() and (left := until - time.monotonic()) > 0:
                for ring in listening.notifies(timeout=min(left, MAX_DEAF_SECONDS), stop_after=1):
                    if ring.payload != self._own:
                        return
        except Exception as error:
            if not self._deaf:
                logger.warning("changes of other replicas are found by polling alone: %s", error)
            self._deaf = True
            self._hang_up()
            stopping.wait(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Ring no more, hear no more; not while another thread waits."""
        self._stopping = True
        self._changed.set()
        self._thread.join()
        self._hang_up()

    def _listener(self) -> Any:
        if self._listening is None:
            pooled = self._engine.raw_connection()
            connection: Any = pooled.driver_connection
            # It is this object's alone from now on, and is closed rather than returned.
            pooled.detach()
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANNEL}")
            self._listening, self._deaf = connection, False
        return self._listening

    def _hang_up(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _run(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._stopping:
                return
            try:
                with self._engine.connect() as connection:
                    connection.execute(select(func.pg_notify(CHANNEL, self._own)))
                    connection.commit()
            except Exception as error:
                logger.info("other replicas are not told of a change, they will find it: %s", error)
