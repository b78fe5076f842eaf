"""What every call passes, over either transport: who is it, may they, and the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.access.purposes import PurposePolicy
from service.access.rights import authorise
from service.call import Call
from service.domain.principal import LOCAL, Principal

__all__ = ["Authenticator", "Credentials", "Gate", "Limiter", "OpenDoor", "Recorder"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller showed: the value of ``authorization``; empty for none."""

    authorization: str = ""


class Authenticator(Protocol):
    """Finds out who asks."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Who it is.

        Raises:
            Unauthenticated: nobody known; the message never says which part was wrong.
            Unavailable: it cannot be found out now.
        """
        ...


class Limiter(Protocol):
    """Bounds how often somebody asks."""

    def take(self, principal: Principal) -> None:
        """Count one request.

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

    async def authenticate(self, credentials: Credentials) -> Principal:  # noqa: ARG002
        """The local principal."""
        return LOCAL


class Gate:
    """Passed by every call, in this order: ``know``, ``admit``, then the work, then ``leave``.

    Args:
        authenticator: Finds out who asks.
        limiters: Bound how often.
        recorders: Record what was asked.
        purposes: Which purpose must be declared.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        limiters: Sequence[Limiter] = (),
        recorders: Sequence[Recorder] = (),
        purposes: PurposePolicy | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._limiters = tuple(limiters)
        self._recorders = tuple(recorders)
        self._purposes = purposes or PurposePolicy()

    async def know(self, call: Call, credentials: Credentials) -> None:
        """Find out who asks, before any of the body is read.

        Raises:
            Unauthenticated, ResourceExhausted, Unavailable: not let in.
        """
        principal = await self._authenticator.authenticate(credentials)
        call.principal = principal
        for limiter in self._limiters:
            limiter.take(principal)

    async def admit(self, call: Call, *, streams: bool = False) -> None:
        """Let the caller go on to the method of the call.

        Raises:
            PermissionDenied: they may not.
            InvalidArgument: the call lacks what is required of it (its purpose).
            Unavailable: it cannot be recorded.
        """
        authorise(call.known, call.method)
        self._purposes.check(call)
        for recorder in self._recorders:
            await recorder.began(call, streams=streams)
        call.admitted = True

    async def leave(self, call: Call, outcome: str) -> None:
        """Record the outcome, before the answer is sent.

        Raises:
            Unavailable: it cannot be recorded; the answer must be this error instead.
        """
        for recorder in self._recorders:
            await recorder.ended(call, outcome)
