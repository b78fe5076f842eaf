"""A connection of the REST listener: it knows the certificate that its caller showed, and does not
wait for ever for what its caller asks.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.tls.caller import subject_of

__all__ = ["CERTIFICATE", "HEAD_SECONDS", "Connection"]

# In the ``state`` of a request's scope.
CERTIFICATE = "certificate"
# For a request's line and headers, from its first byte; of a new connection, from its beginning.
# Nobody is known before, so whoever opens connections and says nothing would keep them all.
HEAD_SECONDS = 30.0


class Connection(H11Protocol):
    """uvicorn's own, which leaves certificates out of the scope and waits for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the subject once for all requests that come this way."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        if shown:
            self.app_state = {**self.app_state, CERTIFICATE: subject_of(shown)}
        self._attend()

    def data_received(self, data: bytes) -> None:
        """Wait no longer for a head than it may take, however slowly it comes."""
        super().data_received(data)
        self._attend()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget()
        super().connection_lost(exc)

    def _attend(self) -> None:
        if not self._is_idle() or self.transport.is_closing():
            self._forget()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_SECONDS, self._leave)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _leave(self) -> None:
        self._patience = None
        if self._is_idle():
            self.transport.close()

    def _is_idle(self) -> bool:
        """Whether nothing is asked: no head is whole, or what follows is the rest of a body whose
        request was answered, refused for example.
        """
        answered = getattr(self.cycle, "response_complete", False)  # there is no cycle at first
        state = self.conn.their_state
        return state is h11.IDLE or (answered and state is h11.SEND_BODY)
