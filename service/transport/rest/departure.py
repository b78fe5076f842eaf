"""Abandons the work of a caller who has hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from resight.errors import Unavailable

__all__ = ["unless_departed"]

T = TypeVar("T")


async def unless_departed(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the connection closes first.

    The request's body must have been read, so that the next event can only be the disconnect.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_departure(request))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            watcher.result()
            raise Unavailable("the caller closed the connection", reason="CALLER_LEFT")
        return task.result()
    finally:
        watcher.cancel()
        task.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
