"""Steps with applications that follow each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from resight.errors import Unavailable
from service.application.application import Application
from service.application.ingest import IngestItem
from service.domain.query import SearchQuery

PATIENCE = 120.0
Together = Callable[..., Any]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds_now(holds):  # noqa: ASYNC110 -- what is waited for tells nobody
            await asyncio.sleep(0.005)


async def holds_now(holds: Callable[[], Awaitable[bool]]) -> bool:
    """No while a fence is closed: a busy machine may hold heartbeats up for a short expiry."""
    try:
        return await holds()
    except Unavailable as error:
        if error.reason != "INDEX_STALE":
            raise
        return False


async def ids_found(application: Application, image: bytes, **query: Any) -> list[UUID]:
    answer = await application.search.search(SearchQuery(image=image, top_k=1000, **query))
    return [match.crop.crop_id for match in answer.matches]


async def found_on(reader: Application, stored: UUID) -> None:
    async def found() -> bool:
        try:
            return stored in await ids_found(reader, b"x")
        except Unavailable:
            return False

    await eventually(found)


def item(number: int, at: Callable, camera: str = "c1", gallery: str = "") -> IngestItem:
    return IngestItem(gallery, camera, at(number), f"crop {number}".encode())


def hold_follower(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is not followed any more, while heartbeats go on."""
    log = application.replication._membership
    monkeypatch.setattr(log, "newest", dict)
