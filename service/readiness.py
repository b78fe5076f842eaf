"""Health that follows the state: who balances load learns that a replica cannot serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

__all__ = ["State", "watch_readiness"]

# `stale`: out of touch with the catalog (service.application.fence); `unrecorded`: the audit cannot
# be written (service.audit.writability), so no call is answered.
State = Literal["starting", "ready", "stale", "unrecorded", "draining"]

logger = logging.getLogger(__name__)

INTERVAL = 0.1


async def watch_readiness(state: Callable[[], State], told: Callable[[], Awaitable[None]]) -> None:
    """Call ``told`` whenever the state has changed, until cancelled."""
    was = state()
    while True:
        if (now := state()) != was:
            was = now
            if now == "ready":
                logger.warning("this replica serves again")
            elif now == "stale":
                logger.error("this replica has lost touch with the catalog and serves no longer")
            elif now == "unrecorded":
                logger.error(
                    "the audit cannot be written, so no call is answered; this replica is not ready"
                )
            await told()
        await asyncio.sleep(INTERVAL)
