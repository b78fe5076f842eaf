"""Measures how late the event loop runs what is due: work on the loop shows up here first."""

from __future__ import annotations

import asyncio

from service.telemetry import LOOP_LAG

__all__ = ["watch_loop_lag"]

INTERVAL_SECONDS = 0.5


async def watch_loop_lag() -> None:
    """Observe the lag twice a second until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))
