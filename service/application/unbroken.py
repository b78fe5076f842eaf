"""Work that is finished once it has begun, even when its caller leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["Unbroken"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Unbroken:
    """Runs coroutines that a cancelled caller must not cut in the middle."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await the work; cancelling the awaiting caller leaves the work running."""
        return await asyncio.shield(self.begin(work))

    def begin(
        self, work: Coroutine[Any, Any, T], *, context: Context | None = None
    ) -> asyncio.Task[T]:
        """Begin work that nobody may await, in the caller's context unless one is given."""
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self) -> None:
        """Wait for everything that was begun."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A caller that is still there gets the error; its message may repeat what they sent.
            logger.debug("unbroken work failed: %s", type(error).__name__)
