"""The listener's end, as the log tells it, and heads that come in pieces."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.transport.rest.server import RestServer


@pytest.mark.parametrize("connected", [False, True], ids=["alone", "beside a kept connection"])
def test_an_end_that_interrupts_nothing_is_no_error(
    connected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def session() -> None:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        serving = server.serve(PlainTextResponse("alive"))
        if connected:  # as a Prometheus keeps it between two scrapes
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert b"200" in await reader.readline()
        await server.stop(0)
        assert serving.done()
        if connected:
            writer.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(session(), 120))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how long the query is."""
    await PlainTextResponse(f"{len(Request(scope).url.query)}.")(scope, receive, send)


@pytest.mark.parametrize("length", [100, 16_000, 20_000, 60_000])
def test_a_long_head_is_taken_in_pieces_as_it_is_whole(length: int) -> None:
    head = b"GET /?" + b"q" * length + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    async def answer(pieces: list[bytes]) -> bytes:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        server.serve(telling)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            # So that they are read one by one.
            await asyncio.sleep(0.02)
        found = await reader.read()
        writer.close()
        await server.stop(0)
        return found

    for pieces in ([head], [head[at : at + 5000] for at in range(0, len(head), 5000)]):
        found = asyncio.run(asyncio.wait_for(answer(pieces), 120))
        assert found.startswith(b"HTTP/1.1 200"), found
        assert f"\r\n{length}.".encode() in found
