"""A lock that many readers share and one writer has alone; a waiting writer goes first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["SharedLock"]


class SharedLock:
    """Not re-entrant."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._readers = 0
        self._writers = 0
        self._writing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """With other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody else."""
        with self._changed:
            self._writers += 1
            self._changed.wait_for(lambda: not self._readers and not self._writing)
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._writers -= 1
                self._changed.notify_all()
