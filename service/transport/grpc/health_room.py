"""Bounds on health calls, which nobody has to show a key for.

A watch lasts as long as its caller likes, and so does a call whose message does not come; each
holds one of the places of all calls. So watches, and calls that wait for their message, have a
share of the places, and names are as long as those of services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from resight.errors import ResightError
from service.transport.grpc.message import only_message

__all__ = ["HealthRoom"]

Context = Any
Handler = Any

MESSAGE_SECONDS = 5.0
MAX_WAITING = 64
MAX_NAME = 200
_SHARE = 4


class HealthRoom:
    """Wraps the handlers of grpc.health.v1. Used on the event loop only.

    Args:
        places: Of all calls.
        message_seconds: How long a message may take.
    """

    def __init__(self, places: int, *, message_seconds: float = MESSAGE_SECONDS) -> None:
        self._most_watches = max(1, places // _SHARE)
        self._most_waiting = min(MAX_WAITING, self._most_watches)
        self._message_seconds = message_seconds
        self._watches = 0
        self._waiting = 0

    def wrapped(self, handler: Handler) -> Handler:
        """The handler, bounded."""
        behaviour: Any = handler.unary_stream or handler.unary_unary

        async def check(requests: AsyncIterator[Any], context: Context) -> Any:
            return await behaviour(await self._asked(requests, context), context)

        async def watch(requests: AsyncIterator[Any], context: Context) -> None:
            request = await self._asked(requests, context)
            if self._watches >= self._most_watches:
                await _refuse(context, f"{self._most_watches} callers watch already; ask Check")
            self._watches += 1
            try:
                await behaviour(request, context)
            finally:
                self._watches -= 1

        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(watch, **coding)
        return grpc.stream_unary_rpc_method_handler(check, **coding)

    async def _asked(self, requests: AsyncIterator[Any], context: Context) -> Any:
        if self._waiting >= self._most_waiting:
            await _refuse(context, "too many health calls wait for their messages; try again")
        self._waiting += 1
        try:
            request = await only_message(requests, seconds=self._message_seconds)
        except ResightError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        finally:
            self._waiting -= 1
        if len(request.service) > MAX_NAME:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no service has such a name")
        return request


async def _refuse(context: Context, why: str) -> None:
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
