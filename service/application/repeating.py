"""Work in the background, done again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from resight.errors import ResightError

__all__ = ["Repeating"]

logger = logging.getLogger(__name__)


class Repeating:
    """Does a piece of work every ``interval`` seconds and when woken; what fails is logged.

    Args:
        name: Of the work, for the log.
        work: Does what there is to do, then returns.
        interval: Seconds between two times.
        at_once: The first time is now; else after an interval.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        interval: float,
        at_once: bool = True,
    ) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._at_once = at_once
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There is something to do now."""
        self._woken.set()

    async def close(self) -> None:
        """Stop between two awaits of the work."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        if not self._at_once:
            await self._wait()
        while True:
            try:
                await self._work()
            except ResightError as error:
                logger.warning("%s: %s; tried again", self._name, error)
            except Exception:
                logger.exception("%s failed; tried again", self._name)
            await self._wait()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._woken.wait()
        self._woken.clear()
