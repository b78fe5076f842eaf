"""The calls that run, and the end of taking more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from resight.errors import Unavailable

__all__ = ["RunningCalls"]


class RunningCalls:
    """How many calls run, and whether more may begin."""

    def __init__(self) -> None:
        self.refused = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._running = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """While a call runs.

        Raises:
            Unavailable: No more may begin.
        """
        if self.refused:
            raise Unavailable(
                "the service is stopping; send the call again, to another replica if there is one",
                reason="DRAINING",
            )
        self._running += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self.idle.set()
