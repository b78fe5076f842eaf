"""The roll of replicas: which of those that the database knows are alive.

By the database's clock a replica is dead when its heartbeat is old; but that clock may be set. So a
process also remembers when, by its own clock, it last saw a heartbeat that it had not seen before,
and holds a replica for dead only when both say so. Both allow a tenth more than the replica allows
itself (``fence``), so that it has stopped serving before anybody stops waiting for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from service.application.fence import elapsed
from service.catalog.replicas import Standing

__all__ = ["Roll"]

GRACE = 1.1


class Roll:
    """What this process has seen of the others.

    Args:
        expire: Seconds for which a replica serves after a heartbeat.
        clock: Seconds since any moment, time included in which the machine slept.
    """

    def __init__(self, expire: float, *, clock: Callable[[], float] = elapsed) -> None:
        self._expire = expire * GRACE
        self._clock = clock
        self._lock = threading.Lock()
        # The last heartbeat seen of each, and when it was new; None when it was the first seen.
        self._seen: dict[UUID, tuple[datetime, float | None]] = {}

    def alive(self, known: Iterable[Standing]) -> list[Standing]:
        """Those that may serve. ``known`` is every replica of the database, as it was just read."""
        with self._lock:
            now = self._clock()
            seen: dict[UUID, tuple[Standing, tuple[datetime, float | None]]] = {}
            for standing in known:
                before = self._seen.get(standing.replica_id)
                if before is None:
                    seen[standing.replica_id] = standing, (standing.heartbeat, None)
                elif before[0] == standing.heartbeat:
                    seen[standing.replica_id] = standing, before
                else:
                    seen[standing.replica_id] = standing, (standing.heartbeat, now)
            self._seen = {replica_id: what for replica_id, (_, what) in seen.items()}
            return [
                standing
                for standing, (_, since) in seen.values()
                if standing.age_seconds < self._expire
                or (since is not None and now - since < self._expire)
            ]
