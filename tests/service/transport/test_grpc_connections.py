"""A connection whose caller does not get to the point."""

from __future__ import annotations

import asyncio

import pytest

from service.serving_settings import GrpcSettings
from service.transport.grpc import server
from service.transport.grpc.server import GrpcServer


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n"])
def test_whoever_does_not_get_to_the_point_is_left(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)

    async def session() -> None:
        listener = GrpcServer(GrpcSettings(), with_reflection=False)
        port = listener.bind("127.0.0.1", 0)
        await listener._server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        await asyncio.wait_for(reader.read(), 60)  # until the other side ends it
        writer.close()
        await listener.stop(0)

    asyncio.run(session())
