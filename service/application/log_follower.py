"""A thread that keeps the indexes in step with the catalog: what other processes have written is
followed, and what could not be applied is tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from service.application.galleries import Galleries
from service.catalog.store import Catalog
from service.telemetry import REPLICA_FOLLOWS

__all__ = ["Log", "LogFollower"]

logger = logging.getLogger(__name__)

# Between two looks at the log: what comes in the meantime is followed together.
REST_SECONDS = 0.01


class Log(Protocol):
    """The log that several processes write."""

    def newest(self) -> Mapping[int, int]:
        """Newest position of every gallery of the catalog, by its row."""

    def followed(
        self, applied: Mapping[int, int], *, caught_up: bool, unopened: Mapping[int, int]
    ) -> None:
        """Told after every look.

        Args:
            applied: By gallery row, the position before what was applied.
            caught_up: Whether every index is now as new as the log was when it was read.
            unopened: Newest positions of galleries that this process does not serve (yet).
        """


class LogFollower:
    """Looks at the log until it is stopped; indexes are changed on the catalog's writer thread.

    Args:
        catalog: Its writer's thread follows.
        galleries: Those kept in step.
        log: None where no other process writes, and only what failed is to be tried again.
        wait: Returns when it is worth looking again, or something is set.
    """

    def __init__(
        self,
        catalog: Catalog,
        galleries: Galleries,
        *,
        log: Log | None,
        wait: Callable[[threading.Event], object],
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._log = log
        self._wait = wait
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Come to an end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Apply what there is.

        Raises:
            Unavailable: the catalog does not answer.
        """
        newest = {} if self._log is None else self._log.newest()
        applied: Mapping[int, int] = {}
        if self._behind(newest) or self._unknown(newest):
            applied = self._catalog.writer.run(lambda: self._follow(newest)).result()
        if self._log is not None:
            # A gallery that could not be opened is not served, so nothing of it is stale.
            self._log.followed(
                applied, caught_up=not self._behind(newest), unopened=self._unknown(newest)
            )

    def _behind(self, newest: Mapping[int, int]) -> bool:
        """Whether an index lacks something; from now on it is said to lag."""
        behind = False
        for gallery in self._galleries.all():
            gallery.heard_of(newest.get(gallery.row, 0))
            behind |= gallery.behind
        return behind

    def _unknown(self, newest: Mapping[int, int]) -> dict[int, int]:
        """Galleries that are not open here, with their newest positions."""
        known = {gallery.row for gallery in self._galleries.all()}
        return {row: position for row, position in newest.items() if row not in known}

    def _follow(self, newest: Mapping[int, int]) -> dict[int, int]:
        """On the writer's thread."""
        applied = {}
        if self._unknown(newest):
            self._tried("new galleries", self._galleries.discover)
        for gallery in self._galleries.all():
            if gallery.behind or newest.get(gallery.row, 0) > gallery.applied:
                before = gallery.applied
                if self._tried(f"gallery {gallery.name}", gallery.follow):
                    applied[gallery.row] = before
        return applied

    def _tried(self, what: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:
            REPLICA_FOLLOWS.labels("failed").inc()
            if not self._failing:
                logger.exception("%s could not follow the log; tried again: %s", what, error)
            self._failing = True
            return False
        REPLICA_FOLLOWS.labels("applied").inc()
        self._failing = False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wait(self._stopping)
            if self._stopping.is_set():
                return
            try:
                self.look()
            except Exception as error:
                self._blind(error)
            self._stopping.wait(REST_SECONDS)

    def _blind(self, error: Exception) -> None:
        """Nobody knows what the log holds: until it is read again every index counts as behind."""
        REPLICA_FOLLOWS.labels("failed").inc()
        if not self._failing:
            logger.warning("the log cannot be read; tried again: %s", error)
        self._failing = True
        if self._log is not None:
            for gallery in self._galleries.all():
                gallery.heard_of(gallery.applied + 1)
