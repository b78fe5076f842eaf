"""The message of a call that takes one, read when its caller was let in.

gRPC reads it before a handler is called, however long that takes. Whoever sends headers alone would
hold one of the places of all calls for ever, and whoever sends most of a message its memory, and
neither is asked who they are. So our handlers all take streams, and read the messages themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from resight.errors import DeadlineExceeded, InvalidArgument
from service import call
from service.call_log import Traffic
from service.transport.patience import waits

__all__ = ["MESSAGE_SECONDS", "Unreadable", "only_message", "readable"]

# For the longest message over a slow line.
MESSAGE_SECONDS = 120.0


@dataclass(frozen=True)
class Unreadable:
    """Stands for a message that is none."""

    reason: str


def readable(request: Any, traffic: Traffic) -> Any:
    """A message as it came.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(request, Unreadable):
        raise InvalidArgument(
            f"the message cannot be read ({request.reason}); send the message of this method in "
            "the protobuf wire format, with strings in UTF-8",
            field="request",
            reason="MESSAGE_UNREADABLE",
        )
    traffic.came(request)
    return request


async def only_message(requests: AsyncIterator[Any], *, seconds: float = MESSAGE_SECONDS) -> Any:
    """The one message of a call, whose caller has no claim to an answer until it is here.

    Raises:
        InvalidArgument: there is none.
        DeadlineExceeded: it did not come in time.
    """
    patience, begun = call.current().patience, perf_counter()
    waits(0.0)
    try:
        async with asyncio.timeout(seconds):
            async for message in requests:
                waits(patience - (perf_counter() - begun))
                return message
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"the message of the call did not come within {seconds:g} s; send it with its headers",
            field="request",
        ) from error
    raise InvalidArgument(
        "the call ended without its message; send the one that the method takes",
        field="request",
        reason="MESSAGE_UNREADABLE",
    )
