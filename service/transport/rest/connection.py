"""A connection of the REST listener: it knows the certificate that its caller showed."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from service.tls.caller import subject_of

__all__ = ["CERTIFICATE", "Connection"]

# In the ``state`` of a request's scope.
CERTIFICATE = "certificate"


class Connection(H11Protocol):
    """uvicorn's own, which leaves certificates out of the scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note the subject once for all requests that come this way."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        if shown:
            self.app_state = {**self.app_state, CERTIFICATE: subject_of(shown)}
