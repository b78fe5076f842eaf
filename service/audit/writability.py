"""Whether the audit can be written, as who balances load is told: not at every stumble.

It cannot after ``LOST_SECONDS`` in which no change succeeded, and can again after changes have
succeeded for ``FOUND_SECONDS``. So a database that fails over within seconds takes no replica out,
and a disk with room for one small entry now and then does not bring one back. What failed is tried
again at least once a second (``service.audit.log``), whether anybody calls or not.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ["FOUND_SECONDS", "LOST_SECONDS", "Writability"]

LOST_SECONDS = 5.0
FOUND_SECONDS = 2.0


class Writability:
    """Told of every change of the chain.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        # Without a failure between, and last.
        self._stored_since = self._stored_at = clock()
        self._is_lost = False

    def failed(self, *, after: float = 0.0) -> None:
        """A change failed, or was given up after so many seconds, in which others may have
        succeeded: a call that waits for too many others is no sign of a fault.
        """
        if self._failing_since is None:
            self._failing_since = max(self._clock() - after, self._stored_at)

    def stored(self) -> None:
        """A change succeeded."""
        self._stored_at = self._clock()
        if self._failing_since is not None:
            self._failing_since, self._stored_since = None, self._stored_at

    def look(self) -> bool:
        """Whether it can be written now."""
        now = self._clock()
        if self._failing_since is not None:
            self._is_lost = self._is_lost or now - self._failing_since >= LOST_SECONDS
        elif now - self._stored_since >= FOUND_SECONDS:
            self._is_lost = False
        return not self._is_lost
