"""Health that follows the fence: who balances load learns that a replica may not serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["watch_fence"]

logger = logging.getLogger(__name__)

INTERVAL = 0.1


async def watch_fence(is_open: Callable[[], bool], told: Callable[[], Awaitable[None]]) -> None:
    """Call ``told`` whenever the fence has opened or closed, until cancelled."""
    was_open = True
    while True:
        if (now_open := is_open()) != was_open:
            was_open = now_open
            if now_open:
                logger.warning("this replica has caught up with the catalog and serves again")
            else:
                logger.error("this replica has lost touch with the catalog and serves no longer")
            await told()
        await asyncio.sleep(INTERVAL)
