"""A listener for HTTP: uvicorn on the running event loop, without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from service.transport.address import bound_socket
from service.transport.rest.connection import Connection

__all__ = ["RestServer"]

_BACKLOG = 1024
_KEEP_ALIVE_SECONDS = 75
# Of a request's line and headers; else whether a longer one is taken is a matter of how it comes.
_HEAD_BYTES = 65_536


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the runtime, which drains both listeners together."""
        yield


class RestServer:
    """``bind``, then ``serve`` (until stopped), then ``stop``.

    Args:
        listener: Its settings' section, for errors.
    """

    def __init__(self, listener: str = "rest") -> None:
        self._listener = listener
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def bind(self, host: str, port: int) -> int:
        """Take the address; returns the port. Connections wait until ``serve``.

        Raises:
            FailedPrecondition: The address cannot be bound.
        """
        self._socket = bound_socket(host, port, listener=self._listener)
        bound: int = self._socket.getsockname()[1]
        return bound

    def serve(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> asyncio.Task[None]:
        """Answer requests, over TLS where there is a context, on a task of its own; it ends when
        the server stops.
        """
        assert self._socket is not None, "bind comes first"  # noqa: S101
        # uvicorn listens some turns of the loop later, when `ready` may have been said already.
        self._socket.listen(_BACKLOG)
        config = uvicorn.Config(
            app,
            http=Connection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        return self._serving

    async def stop(self, grace: float) -> None:
        """Take no new connections, give running requests ``grace`` seconds (at least one), then
        cancel them.
        """
        if self._server is not None and self._serving is not None:
            # uvicorn calls it an error when none at all is left, even if nobody is connected.
            self._server.config.timeout_graceful_shutdown = max(1, round(grace))
            self._server.should_exit = True
            await asyncio.wait([self._serving])
        elif self._socket is not None:
            self._socket.close()
