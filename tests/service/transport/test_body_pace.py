"""What is no longer waited for is not refused: an answer has begun, or the body is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from resight.errors import RequestTooSlow
from service.transport.rest import body_pace
from service.transport.rest.body_pace import BodyPace

LEFT: Message = {"type": "http.disconnect"}
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Patience:
    """Stands where the pace stands, and ends when it is told to."""

    over: asyncio.Event

    def __init__(self, *_: Any, **__: Any) -> None:
        Patience.over = asyncio.Event()

    async def wait(self, coming: Awaitable[Message]) -> Message:
        piece = asyncio.ensure_future(coming)
        over = asyncio.ensure_future(Patience.over.wait())
        await asyncio.wait((piece, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if piece.done():
            return piece.result()
        piece.cancel()
        raise TimeoutError

    def came(self, size: int) -> None:
        """Nothing is counted."""


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_pace, "Pace", Patience)


def told(app: Any, *pieces: Message) -> Any:
    """What the application returns, to which these come before the caller falls silent."""

    async def whole() -> Any:
        left, coming, found = asyncio.Event(), list(pieces), []

        async def receive() -> Message:
            if coming:
                return coming.pop(0)
            await left.wait()
            return LEFT

        async def send(_: Message) -> None:
            pass

        async def asked(_: Scope, receive: Receive, send: Send) -> None:
            found.append(await app(receive, send, left))

        limited = BodyPace(asked, seconds=1, rate=lambda _: inf)
        async with asyncio.timeout(120):
            await limited({"type": "http"}, receive, send)
        return found[0]

    return asyncio.run(whole())


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_waits_for_a_body_is_told() -> None:
    async def app(receive: Receive, _send: Send, _left: asyncio.Event) -> None:
        assert (await receive())["body"] == b"{"
        Patience.over.set()
        await receive()

    with pytest.raises(RequestTooSlow, match=r"within 1 s \(rest.max_body_seconds\)"):
        told(app, {"type": "http.request", "body": b"{", "more_body": True})


def test_after_the_body_nobody_is_hurried() -> None:
    async def app(receive: Receive, _send: Send, left: asyncio.Event) -> Message:
        await receive()
        Patience.over.set()
        leaving = asyncio.ensure_future(receive())
        await turns()
        assert not leaving.done()
        left.set()
        return await leaving

    assert told(app, {"type": "http.request", "body": b"{}", "more_body": False}) == LEFT


@pytest.mark.parametrize("already", [False, True], ids=["waiting", "not yet waiting"])
def test_an_answer_that_has_begun_is_not_cut(already: bool) -> None:
    """That of a caller who announced a body which nobody reads."""

    async def app(receive: Receive, send: Send, left: asyncio.Event) -> Message:
        if already:
            await send(START)
        leaving = asyncio.ensure_future(receive())
        await turns()
        if not already:
            await send(START)
        Patience.over.set()
        await turns()
        assert not leaving.done()
        left.set()
        return await leaving

    assert told(app) == LEFT
