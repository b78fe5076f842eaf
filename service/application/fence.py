"""The fence of a replica: it serves while it can be sure that erasures wait for it.

Whoever erases waits for every replica that lives, and a replica lives while its last heartbeat in
the database is younger than the expiry. So a replica counts from the moment before it sent its
last heartbeat, by a clock of its own that nobody can set, and that runs on while the process or
the machine is stopped: it closes its fence before anybody stops waiting for it. The fence opens
when the replica has been heard of again and *then* brought its indexes up to the newest change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from resight.errors import Unavailable

__all__ = ["Fence", "elapsed"]


def elapsed() -> float:
    """Seconds since the machine started, those included in which it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Open while indexes may be searched and stored crops shown.

    Args:
        expire: Seconds after the beginning of a heartbeat until which it counts; None for a
            process that serves its catalog alone, whose fence is always open.
        clock: Seconds since any moment.
    """

    def __init__(
        self, expire: float | None = None, *, clock: Callable[[], float] = elapsed
    ) -> None:
        self._expire = expire
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = float("-inf")
        self._term = 0
        self._caught_up_in = 0 if expire is None else -1

    @property
    def term(self) -> int:
        """Number of the unbroken run of heartbeats that is going on; none has begun at 0."""
        with self._lock:
            return self._term

    @property
    def is_open(self) -> bool:
        """Whether this process may serve."""
        if self._expire is None:
            return True
        with self._lock:
            in_time = self._clock() - self._begun < self._expire
            return in_time and self._caught_up_in == self._term

    def is_known_since(self, term: int) -> bool:
        """Whether nobody can have held this process for dead since a term was read."""
        if self._expire is None:
            return True
        with self._lock:
            return self._term == term and self._clock() - self._begun < self._expire

    def check(self) -> None:
        """Pass while the fence is open.

        Raises:
            Unavailable: it is closed (reason ``INDEX_STALE``).
        """
        if not self.is_open:
            raise Unavailable(
                "this replica has lost touch with the catalog and may not know of erasures; it "
                "serves again when it has caught up: ask another replica, or try again later",
                field="database_url",
                reason="INDEX_STALE",
            )

    def beaten(self, begun: float, *, anew: bool = False) -> None:
        """A heartbeat was stored, begun at a time of the clock; ``anew``: as a new replica."""
        with self._lock:
            lapsed = self._expire is not None and self._clock() - self._begun >= self._expire
            if anew or lapsed:
                self._term += 1
            self._begun = begun

    def caught_up(self, term: int) -> None:
        """Every change that was there in a term's time has been applied."""
        with self._lock:
            self._caught_up_in = term
