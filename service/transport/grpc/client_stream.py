"""A client's stream: it begins with its first message, which says of which gallery.

That it begins is recorded then, before the message goes any further; a stream that ends without
one has done nothing, and stands in the audit with its end alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from resight.errors import RequestTooSlow, ResightError
from resight.v1.model_service_pb2 import RegisterModelRequest
from service import call as call_in_progress
from service.access.gate import Credentials, Gate
from service.call import Call
from service.call_log import Traffic
from service.domain import names
from service.transport.grpc.message import MESSAGE_SECONDS, readable
from service.transport.subjects import note_message

__all__ = ["ClientStream", "begun", "each", "let_on"]


class ClientStream:
    """The messages of a stream.

    Args:
        messages: As they come.
        begin: Records that the call begins; raises when that cannot be done.
        within: Seconds in which the first message must come; None where the stream lasts as long
            as its credentials hold.
    """

    def __init__(
        self,
        messages: AsyncIterator[Any],
        begin: Callable[[], Coroutine[Any, Any, None]],
        *,
        within: float | None = None,
    ) -> None:
        self._messages = messages
        self._begin = begin
        self._within = within
        self._beginning: asyncio.Task[None] | None = None
        self._is_begun = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._is_begun:
            return await anext(self._messages)
        message = await self._first()
        _enter_gallery(message)
        note_message(message)
        self._beginning = asyncio.create_task(self._begin())
        await self._beginning
        self._is_begun = True
        return message

    async def _first(self) -> Any:
        try:
            async with asyncio.timeout(self._within):
                return await anext(self._messages)
        except TimeoutError as error:
            raise RequestTooSlow(
                f"the first message of the stream did not come within {self._within:g} s; send it "
                "with the headers",
                field="request",
            ) from error

    async def over(self) -> None:
        """The call is about to be recorded as ended: from now on it does not begin any more."""
        if self._beginning is not None and not self._beginning.done():
            self._beginning.cancel()
            await asyncio.wait((self._beginning,))


@asynccontextmanager
async def begun(
    request: Any,
    gate: Gate,
    credentials: Credentials,
    *,
    admits: bool,
    listens: bool,
    streams: bool,
) -> AsyncIterator[Any]:
    """What the method is given: that it begins is recorded before any of that."""
    call = call_in_progress.current()

    async def begin() -> None:
        if listens and not streams:
            # As of a call of one message: the first may have come long after the headers.
            await gate.go_on(call, credentials)
        await gate.announce(call, streams=streams)

    if not admits:
        yield request
    elif not listens:
        await begin()
        yield request
    else:
        stream = ClientStream(request, begin, within=None if streams else MESSAGE_SECONDS)
        try:
            yield stream
        finally:
            await stream.over()


async def each(requests: AsyncIterator[Any], traffic: Traffic) -> AsyncIterator[Any]:
    """The messages as they can be read; one that cannot be ends them with its error."""
    return _all_readable(requests, traffic)


async def let_on(
    requests: AsyncIterator[Any], gate: Gate, call: Call, credentials: Credentials
) -> AsyncIterator[Any]:
    """The messages while their caller is let in."""
    async for request in requests:
        await gate.go_on(call, credentials)
        yield request


async def _all_readable(requests: AsyncIterator[Any], traffic: Traffic) -> AsyncIterator[Any]:
    async for request in requests:
        yield readable(request, traffic)


def _enter_gallery(message: Any) -> None:
    """What the first message names; whether that may be, and is there, its own answer says."""
    if not isinstance(message, RegisterModelRequest):
        named = message.gallery
    elif message.HasField("upload"):
        named = message.upload.gallery
    else:
        return
    with suppress(ResightError):
        call_in_progress.enter_gallery(names.gallery_name(named))
