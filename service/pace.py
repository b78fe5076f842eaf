"""How long a caller may keep us waiting for what they send.

A bucket of seconds: waiting drains it, what has come fills it again, never above what it held at
first. So nobody is silent for longer than that, nor slower than the rate for long, and what may
take its time by its size does so. What we do ourselves between two pieces costs the caller nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from time import monotonic
from typing import TypeVar

__all__ = ["Pace"]

T = TypeVar("T")


class Pace:
    """That of one body.

    Args:
        seconds: Most that is waited while nothing comes.
        bytes_per_second: What comes at this rate may go on for ever; infinite: all of it must come
            within the seconds.
    """

    def __init__(self, seconds: float, *, bytes_per_second: float = inf) -> None:
        self._seconds = self._left = seconds
        self._rate = bytes_per_second

    async def wait(self, coming: Awaitable[T]) -> T:
        """The next piece.

        Raises:
            TimeoutError: The caller is too slow.
        """
        begun = monotonic()
        try:
            async with asyncio.timeout(max(self._left, 0.0)):
                return await coming
        finally:
            self._left -= monotonic() - begun

    def came(self, size: int) -> None:
        """So many bytes have come."""
        self._left = min(self._seconds, self._left + size / self._rate)
