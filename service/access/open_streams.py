"""Streams end with the credentials that they were begun with: expired, revoked, or with a signing
key that its issuer has withdrawn.

One task looks, while any stream is open, once an interval, and once for all streams that show the
same credentials; a message costs its stream a comparison of two clocks. What is looked at is what
is known of keys in memory, which the looking keeps fresh.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from time import monotonic

from resight.errors import CredentialsLapsed, ResightError, Unauthenticated, Unavailable
from service.call import Call

__all__ = ["OpenStreams"]

logger = logging.getLogger(__name__)

_LOOKS = 4
# Of looking, then others have their turn: a signature costs a tenth of a millisecond.
_TURN_SECONDS = 0.005


@dataclass(slots=True, eq=False)
class _Stream:
    call: Call
    shown: str
    task: asyncio.Task[object] | None


class OpenStreams:
    """The streams of one process. Used on the event loop only.

    Args:
        look: Whether credentials still hold; raises Unauthenticated, or Unavailable.
        seconds: After these a stream has ended whose credentials hold no longer: it is looked at
            four times as often. One that has not ended by itself then, as nobody reads it, is
            broken off.
    """

    def __init__(self, look: Callable[[str], Awaitable[object]], *, seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._open: dict[str, set[_Stream]] = {}
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def one(
        self, call: Call, shown: str, task: asyncio.Task[object] | None = None
    ) -> Iterator[None]:
        """Watch over a stream.

        Args:
            call: Told when its credentials have lapsed.
            shown: Its credentials.
            task: Cancelled when the call does not end for being told; the current one if None.
        """
        stream = _Stream(call, shown, task or asyncio.current_task())
        same = self._open.setdefault(shown, set())
        same.add(stream)
        if self._watching is None or self._watching.done():
            # In no context, as it works for no call.
            self._watching = asyncio.get_running_loop().create_task(
                self._watch(), context=Context()
            )
        try:
            yield
        finally:
            same.discard(stream)
            if not same and self._open.get(shown) is same:
                del self._open[shown]

    async def check(self, call: Call, shown: str) -> None:
        """Let a message pass; when nobody could look for too long, once that was made up for.

        Raises:
            Unauthenticated, Unavailable: The credentials hold no longer, or that cannot be known.
        """
        if call.lapsed is not None:
            raise call.lapsed
        if monotonic() - call.looked_at > self._seconds:
            now = monotonic()
            fault = await self._fault(partial(self._look, shown))
            if fault is not None:
                call.lapse(fault)
                raise fault
            call.looked_at = now

    async def confirm(self, look: Callable[[], Awaitable[object]]) -> None:
        """Let what took long be put to use.

        Raises:
            Unauthenticated, Unavailable: The credentials hold no longer, or that cannot be known.
        """
        fault = await self._fault(look)
        if fault is not None:
            raise fault

    async def _watch(self) -> None:
        while self._open:
            await asyncio.sleep(self._seconds / _LOOKS)
            turn = monotonic()
            for shown in tuple(self._open):
                now = monotonic()
                if now - turn > _TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn = now = monotonic()
                fault = await self._fault(partial(self._look, shown))
                for stream in tuple(self._open.get(shown, ())):
                    if fault is not None:
                        self._tell(stream, fault)
                    elif stream.call.looked_at < now:
                        stream.call.looked_at = now

    async def _fault(self, look: Callable[[], Awaitable[object]]) -> ResightError | None:
        try:
            await look()
        except Unauthenticated:
            return CredentialsLapsed(
                "the credentials that the call was begun with hold no longer, they were revoked "
                "or have expired; begin another with valid ones, and send again what has no answer",
                field="authorization",
            )
        except ResightError as error:
            return error
        except Exception:
            # Whatever the fault, nobody is let on who was not looked at.
            logger.exception("the credentials of streams cannot be looked at")
            return Unavailable(
                "credentials cannot be looked at now; try again", reason="KEYS_UNAVAILABLE"
            )
        return None

    def _tell(self, stream: _Stream, fault: ResightError) -> None:
        if stream.call.lapsed is not None:
            return
        stream.call.lapse(fault)
        asyncio.get_running_loop().call_later(self._seconds, self._break_off, stream)

    def _break_off(self, stream: _Stream) -> None:
        if stream in self._open.get(stream.shown, ()) and stream.task is not None:
            stream.task.cancel()
