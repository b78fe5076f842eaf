"""Both listeners over one rotation, on the loop that the service runs on, in a thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access_settings import TlsSettings
from service.clock import SystemClock
from service.tls.rotation import Rotation
from service.transport.grpc.metadata import certificate_of
from service.transport.rest.connection import CERTIFICATE
from service.transport.rest.server import RestServer
from tests.service.tls.authority import Files

__all__ = ["Listeners", "agreed", "call", "get", "greeting", "listening"]


@dataclass
class Listeners:
    """Running listeners and the rotation that both use."""

    rotation: Rotation
    grpc: str
    rest: tuple[str, int]
    callers: list[str]


class Health(health_pb2_grpc.HealthServicer):
    """Answers, and notes who asked."""

    def __init__(self, callers: list[str]) -> None:
        self._callers = callers

    async def Check(self, _request: Any, context: Any) -> Any:  # noqa: N802
        self._callers.append(certificate_of(context))
        return health_pb2.HealthCheckResponse(status="SERVING")

    async def Watch(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        while True:
            yield health_pb2.HealthCheckResponse(status="SERVING")
            await asyncio.sleep(0.01)


@contextmanager
def listening(
    settings: TlsSettings,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> Iterator[Listeners]:
    """Serves until the end of the block."""
    ready, started = threading.Event(), []
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        rotation = Rotation.open(settings, SystemClock())
        assert rotation is not None
        callers: list[str] = []
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(Health(callers), server)  # type: ignore[no-untyped-call]
        port = server.add_secure_port("127.0.0.1:0", rotation.grpc_credentials())
        await server.start()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            callers.append(scope["state"].get(CERTIFICATE, ""))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"here"})

        rest = RestServer()
        rest_port = rest.bind("127.0.0.1", 0)
        rest.serve(app, rotation.rest_context)
        started.append(Listeners(rotation, f"127.0.0.1:{port}", ("127.0.0.1", rest_port), callers))
        ready.set()
        await stop.wait()
        await rest.stop(0)
        await server.stop(0)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(120)
    try:
        yield started[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(120)


def greeting(
    ca: Path, client: Files | None = None, *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """How a client greets: whom it trusts, what it shows, and the newest version it speaks."""
    context = ssl.create_default_context(cafile=str(ca))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    if version is not None:
        # Old versions need ciphers that the library no longer offers by itself.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


def agreed(address: tuple[str, int], context: ssl.SSLContext) -> str | None:
    """The version that both sides agree on; SSLError or ConnectionError when on none."""
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        return stream.version()


def get(
    address: tuple[str, int], context: ssl.SSLContext, sessions: list[Any] | None = None
) -> bytes:
    """``GET /``: the answer; OSError when there is none. Resumes the last of ``sessions``, and adds
    its own.
    """
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(
            plain, server_hostname="localhost", session=sessions[-1] if sessions else None
        ) as stream,
    ):
        stream.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b""
        while part := stream.recv(4096):
            answer += part
        if not answer:
            raise ConnectionError("closed without an answer")
        if sessions is not None:
            sessions.append(stream.session)
        return answer


def call(target: str, ca: Path | None, client: Files | None = None) -> Any:
    """One health check; RpcError when it is not answered. Plaintext without a CA."""
    if ca is None:
        channel = grpc.insecure_channel(target)
    else:
        credentials = grpc.ssl_channel_credentials(
            ca.read_bytes(),
            None if client is None else client.key.read_bytes(),
            None if client is None else client.certificate.read_bytes(),
        )
        channel = grpc.secure_channel(target, credentials)
    with channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
