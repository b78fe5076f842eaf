"""Who is told that the state has changed, and what the log says."""

from __future__ import annotations

import asyncio
import logging

import pytest

from service.readiness import State, watch_readiness


def test_every_change_is_told_and_said(caplog: pytest.LogCaptureFixture) -> None:
    told: list[State] = []

    async def work() -> None:
        state: State = "ready"
        known = asyncio.Event()

        async def tell() -> None:
            told.append(state)
            known.set()

        watching = asyncio.create_task(watch_readiness(lambda: state, tell))
        await asyncio.sleep(0)
        changes: tuple[State, ...] = ("unrecorded", "stale", "ready")
        for change in changes:
            known.clear()
            state = change
            await asyncio.wait_for(known.wait(), 60)
        watching.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(work())
    assert told == ["unrecorded", "stale", "ready"]
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.ERROR, logging.WARNING]
    assert "audit" in caplog.records[0].message
