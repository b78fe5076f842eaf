"""What all ingest streams may have in work together; a stream that finds no room is not read on.

gRPC's own window then holds its client back, so however many streams send however fast, the images
in memory are bounded, and the queue in front of the encoder has room for what is let in.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["IngestRoom"]


class IngestRoom:
    """Counts items and their bytes. Used on one event loop.

    Who waits is let in by order of arrival; as a stream waits with one item only, streams take
    turns.

    Args:
        items: Most items inside.
        size: Most bytes inside; a lone item may have more.
    """

    def __init__(self, *, items: int, size: int) -> None:
        self._most_items = items
        self._most_bytes = size
        self._items = 0
        self._bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def items(self) -> int:
        """Items inside."""
        return self._items

    @property
    def bytes(self) -> int:
        """Bytes inside."""
        return self._bytes

    async def enter(self, size: int) -> None:
        """Wait for room for an item of so many bytes, and take it."""
        if not self._waiting and self._fits(size):
            self._take(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(size)
            else:
                self._waiting.remove((size, turn))
                self._let_in()
            raise

    def leave(self, size: int) -> None:
        """Give the room of an item back."""
        self._items -= 1
        self._bytes -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self._take(size)
            turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return not self._items or (
            self._items < self._most_items and self._bytes + size <= self._most_bytes
        )

    def _take(self, size: int) -> None:
        self._items += 1
        self._bytes += size
