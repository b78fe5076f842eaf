"""What every call passes, over either transport: who is it, may they, and the record of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter
from typing import Protocol

from resight.errors import ResourceExhausted, Unauthenticated
from service.access.attempts import Attempts
from service.access.open_streams import OpenStreams
from service.access.purposes import PurposePolicy
from service.access.rights import authorise
from service.call import Call
from service.domain.principal import LOCAL, Principal
from service.telemetry import AUTHENTICATIONS

__all__ = ["Authenticator", "Credentials", "Gate", "Limiter", "OpenDoor", "Recorder"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller showed: the value of ``authorization``; empty for none."""

    authorization: str = ""


class Authenticator(Protocol):
    """Finds out who asks."""

    async def authenticate(self, credentials: Credentials, *, ago: float = 0.0) -> Principal:
        """Who it is.

        Args:
            credentials: What they showed.
            ago: So many seconds may have passed since it expired.

        Raises:
            Unauthenticated: nobody known; the message never says which part was wrong.
            Unavailable: it cannot be found out now.
        """
        ...

    async def formerly(self, credentials: Credentials) -> str:
        """Whose credentials these were that hold no longer, as the audit names them; empty for
        nobody's, or when that cannot be found out now.
        """
        ...


class Limiter(Protocol):
    """Bounds how often somebody asks."""

    def take(self, principal: Principal, count: int = 1) -> None:
        """Count requests.

        Raises:
            ResourceExhausted: rate or quota is used up.
        """
        ...


class Recorder(Protocol):
    """Records what was asked."""

    async def began(self, call: Call, *, streams: bool) -> None:
        """A call begins; what it changes from now on is not undone if recording its end fails.

        Raises:
            Unavailable: it cannot be recorded, so it must not happen.
        """
        ...

    async def ended(self, call: Call, outcome: str) -> None:
        """A call has ended; its answer is held until this returns.

        Args:
            call: The call, with its principal (None: nobody was let in), purpose and notes.
            outcome: gRPC status name of the answer.

        Raises:
            Unavailable: it cannot be recorded, so the answer must not be given.
        """
        ...


class OpenDoor:
    """A service without authentication: everybody is `LOCAL`."""

    async def authenticate(
        self,
        credentials: Credentials,  # noqa: ARG002
        *,
        ago: float = 0.0,  # noqa: ARG002
    ) -> Principal:
        """The local principal."""
        return LOCAL

    async def formerly(self, credentials: Credentials) -> str:  # noqa: ARG002
        """Nobody's."""
        return ""


class Gate:
    """Passed by every call, in this order: ``know``, ``admit``, ``announce`` once the gallery is
    known, as far as one request says it, then the work, then ``leave``.

    Args:
        authenticator: Finds out who asks.
        limiters: Bound how often.
        attempts: Bounds how many refused callers are recorded.
        recorders: Record what was asked.
        purposes: Which purpose must be declared.
        refresh_seconds: After these a stream has ended whose credentials hold no longer.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        limiters: Sequence[Limiter] = (),
        attempts: Attempts | None = None,
        recorders: Sequence[Recorder] = (),
        purposes: PurposePolicy | None = None,
        refresh_seconds: float = 2.0,
    ) -> None:
        self._authenticator = authenticator
        self._limiters = tuple(limiters)
        self._attempts = attempts or Attempts(0)
        self._recorders = tuple(recorders)
        self._purposes = purposes or PurposePolicy()
        self._streams = OpenStreams(
            lambda shown: authenticator.authenticate(Credentials(shown)), seconds=refresh_seconds
        )

    @property
    def is_open(self) -> bool:
        """Whether nobody has to show anything."""
        return isinstance(self._authenticator, OpenDoor)

    async def know(self, call: Call, credentials: Credentials) -> None:
        """Find out who asks, before any of the body is read.

        Raises:
            Unauthenticated, ResourceExhausted, Unavailable: not let in.
        """
        try:
            principal = await self._authenticator.authenticate(credentials)
        except Unauthenticated as error:
            wait = self._attempts.wait(call.peer)
            if not wait:
                call.formerly = await self._authenticator.formerly(credentials)
                raise
            call.recorded = False
            AUTHENTICATIONS.labels("none", "throttled").inc()
            raise ResourceExhausted(
                "too many attempts from this address were refused; send valid credentials",
                field="authorization",
                reason="TOO_MANY_ATTEMPTS",
                retry_after=wait,
            ) from error
        call.principal = principal
        call.looked_at = monotonic()
        call.charge = partial(self._charge, principal)
        call.confirm = partial(self._confirm, call, credentials)
        try:
            call.charge(1)
        except ResourceExhausted:
            # Whoever asks too often must not fill the audit with it.
            call.recorded = not self._attempts.wait(principal.name)
            raise

    def streaming(
        self, call: Call, credentials: Credentials, task: asyncio.Task[object] | None = None
    ) -> AbstractContextManager[None]:
        """While a stream is open: it ends with its credentials (`service.access.open_streams`).

        Args:
            call: The stream.
            credentials: What it was begun with.
            task: Cancelled when the stream does not end for being told; the current one if None.
        """
        if self.is_open:
            return nullcontext()
        return self._streams.one(call, credentials.authorization, task)

    async def go_on(self, call: Call, credentials: Credentials) -> None:
        """Let a stream's message pass, and the one of a call that came long after its headers:
        whoever holds it back must not go on to the method when nobody lets them in any more.

        Raises:
            Unauthenticated, Unavailable: the credentials hold no longer, or that cannot be known.
        """
        if not self.is_open:
            await self._streams.check(call, credentials.authorization)

    async def _confirm(self, call: Call, credentials: Credentials) -> None:
        ago = perf_counter() - call.begun
        await self._streams.confirm(partial(self._authenticator.authenticate, credentials, ago=ago))

    def _charge(self, principal: Principal, count: int) -> None:
        for limiter in self._limiters:
            limiter.take(principal, count)

    def admit(self, call: Call) -> None:
        """Let the caller go on to the method of the call.

        Raises:
            PermissionDenied: they may not.
            InvalidArgument: the call lacks what is required of it (its purpose).
        """
        authorise(call.known, call.method)
        self._purposes.check(call)
        call.admitted = True

    async def announce(self, call: Call, *, streams: bool = False) -> None:
        """Record that it begins, where it changes something or streams.

        Raises:
            Unavailable: it cannot be recorded, so it must not.
        """
        for recorder in self._recorders:
            await recorder.began(call, streams=streams)

    async def leave(self, call: Call, outcome: str) -> None:
        """Record the outcome, before the answer is sent.

        Raises:
            Unavailable: it cannot be recorded; the answer must be this error instead.
        """
        if not call.recorded:
            return
        for recorder in self._recorders:
            await recorder.ended(call, outcome)
