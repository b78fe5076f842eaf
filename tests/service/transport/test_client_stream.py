"""A stream begins with its first message, and nothing of it passes before that is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from resight.errors import RequestTooSlow, Unavailable
from resight.v1.gallery_service_pb2 import IngestCropsRequest
from resight.v1.model_service_pb2 import ModelUpload, RegisterModelRequest
from service import call as call_in_progress
from service.call import Call
from service.domain.principal import LOCAL, Principal
from service.transport.grpc.client_stream import ClientStream


async def given(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def began(principal: Principal = LOCAL) -> Call:
    call = Call("grpc", "GalleryService/IngestCrops", principal=principal)
    call_in_progress.begin(call)
    return call


def test_it_is_recorded_once_before_anything_passes() -> None:
    told: list[Any] = []

    async def work() -> None:
        call = began()

        async def begin() -> None:
            await asyncio.sleep(0)
            told.append(("began", call.gallery))

        items = [IngestCropsRequest(gallery=name, sequence=1) for name in ("a", "b", "")]
        stream = ClientStream(given(*items), begin)
        async for message in stream:
            told[len(told) :] = [message.gallery]
        await stream.over()

    asyncio.run(work())
    assert told == [("began", "a"), "a", "b", ""]


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (IngestCropsRequest(), "default"),
        (IngestCropsRequest(gallery="../etc"), ""),
        (IngestCropsRequest(gallery="theirs"), "theirs"),
        (RegisterModelRequest(upload=ModelUpload(gallery="a")), "a"),
        (RegisterModelRequest(upload=ModelUpload()), "default"),
        (RegisterModelRequest(chunk=b"x"), ""),
    ],
)
def test_what_the_first_message_names(message: Any, named: str) -> None:
    """Also where the caller may not be: that is for the answer of the message to say."""

    async def work() -> str:
        call = began(Principal("key:1", "key", frozenset(), galleries=frozenset({"a", "default"})))

        async def begin() -> None:
            pass

        assert [each async for each in ClientStream(given(message), begin)] == [message]
        return call.gallery

    assert asyncio.run(work()) == named


def test_nothing_passes_when_it_cannot_be_recorded() -> None:
    asked = 0

    async def work() -> None:
        began()

        async def begin() -> None:
            nonlocal asked
            asked += 1
            raise Unavailable("the disk is full")

        stream = ClientStream(given(*[IngestCropsRequest()] * 2), begin)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await anext(stream)
        await stream.over()

    asyncio.run(work())
    assert asked == 2


def test_without_a_message_it_does_not_begin() -> None:
    async def work() -> None:
        began()

        async def begin() -> None:
            raise AssertionError("nothing began")

        stream = ClientStream(given(), begin)
        assert [each async for each in stream] == []
        await stream.over()

    asyncio.run(work())


def test_it_does_not_begin_after_it_is_over() -> None:
    """Another task than the call's reads the stream, and the call does not wait for that one."""
    told: list[str] = []

    async def work() -> None:
        began()
        entered = asyncio.Event()

        async def begin() -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                told.append("given up")

        stream = ClientStream(given(IngestCropsRequest()), begin)
        reader = asyncio.ensure_future(anext(stream))
        await entered.wait()
        reader.cancel()
        await stream.over()
        told.append("over")
        await asyncio.wait([reader])
        assert reader.cancelled()

    asyncio.run(work())
    assert told == ["given up", "over"]


def test_a_first_message_that_never_comes_is_waited_for_so_long() -> None:
    async def silent() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    async def slow() -> AsyncIterator[Any]:
        yield IngestCropsRequest(gallery="a")
        await asyncio.sleep(0.3)
        yield IngestCropsRequest(gallery="b")

    async def begin() -> None:
        told.append("began")

    async def work() -> None:
        began()
        with pytest.raises(RequestTooSlow):
            await anext(ClientStream(silent(), begin, within=0.1))
        assert told == []
        # Only the first: what comes later has bounds of its own.
        stream = ClientStream(slow(), begin, within=0.1)
        assert [message.gallery async for message in stream] == ["a", "b"]

    told: list[str] = []
    asyncio.run(work())
    assert told == ["began"]
