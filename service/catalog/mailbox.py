"""Answers of a thread brought to an event loop, many with one wake-up.

A loop is woken through its file descriptor, which costs more than a crop's insert does. Answers
that come before the loop has looked travel with the first of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox:
    """Awaits futures of another thread on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._arrived: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._woken = False

    async def result(self, future: Future[T]) -> T:
        """As ``await asyncio.wrap_future(future)``."""
        waiting: asyncio.Future[T] = self.loop.create_future()
        future.add_done_callback(lambda done: self._deliver(waiting, done))
        try:
            return await waiting
        except asyncio.CancelledError:
            future.cancel()
            raise

    async def results(self, futures: Sequence[Future[T]]) -> list[T | BaseException]:
        """What each future came to, once all are done; cancelling it cancels none of them."""
        waiting: list[asyncio.Future[T]] = []
        for future in futures:
            waiting.append(answer := self.loop.create_future())
            future.add_done_callback(partial(self._deliver, answer))
        found: list[T | BaseException] = []
        for answer in waiting:
            try:
                found.append(await answer)
            except Exception as error:
                found.append(error)
        return found

    def _deliver(self, waiting: asyncio.Future[Any], done: Future[Any]) -> None:
        self._arrived.append((waiting, done))
        if not self._woken and not self.loop.is_closed():
            self._woken = True
            self.loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        # First: who comes from now on wakes the loop again.
        self._woken = False
        while self._arrived:
            waiting, done = self._arrived.popleft()
            if waiting.done():
                continue
            if done.cancelled():
                waiting.cancel()
            elif (error := done.exception()) is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(done.result())
