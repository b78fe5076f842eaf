"""Connections whose callers do not say what they ask."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.transport.rest import connection
from service.transport.rest import server as server_module
from service.transport.rest.server import RestServer

SECONDS = 1.0
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when a connection would have been left, had it not asked."""
    await Request(scope, receive).body()
    await asyncio.sleep(3 * SECONDS)
    await PlainTextResponse("done")(scope, receive, send)


@pytest.mark.parametrize("said", [b"", HEAD, b"drip"])
def test_whoever_does_not_ask_is_left(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SECONDS)

    async def session() -> bytes:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        server.serve(slow)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        end = asyncio.create_task(reader.read())
        if said == b"drip":
            begun = monotonic()
            for byte in HEAD * 1000:
                writer.write(bytes([byte]))
                await asyncio.sleep(SECONDS / 5)
                if end.done() or monotonic() - begun > 60:
                    break
        else:
            writer.write(said)
        found = await end
        writer.close()
        await server.stop(0)
        return found

    assert asyncio.run(asyncio.wait_for(session(), 120)) == b""


def test_who_asks_nothing_more_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_SECONDS", 1)

    async def session() -> bytes:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        server.serve(PlainTextResponse("done"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n")
        found = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        await server.stop(0)
        return found

    assert asyncio.run(session()).endswith(b"done")


def test_whoever_goes_on_after_the_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SECONDS)

    async def session() -> bytes:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        server.serve(PlainTextResponse("no", 401))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD.replace(b"GET", b"POST") + b"Content-Length: 1000\r\n\r\n")
        end = asyncio.create_task(reader.read())
        for _ in range(100):
            writer.write(b"x")
            await asyncio.sleep(SECONDS / 5)
            if end.done():
                break
        assert end.done()
        writer.close()
        await server.stop(0)
        return await end

    answer = asyncio.run(asyncio.wait_for(session(), 120))
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.endswith(b"no")


def test_whoever_asks_is_answered_however_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", SECONDS)

    async def session() -> list[bytes]:
        server = RestServer()
        port = server.bind("127.0.0.1", 0)
        server.serve(slow)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = []
        for _ in range(2):
            # The head comes at once: a busy machine may stand still for most of its time.
            # The body comes late, and the second request on the same connection later than a head.
            writer.write(HEAD.replace(b"GET", b"POST") + b"Content-Length: 4\r\n\r\n")
            await asyncio.sleep(2 * SECONDS)
            writer.write(b"body")
            lines.append(await reader.readline())
            await reader.readuntil(b"done")
            await asyncio.sleep(2 * SECONDS)
        writer.close()
        await server.stop(0)
        return lines

    assert asyncio.run(asyncio.wait_for(session(), 120)) == [b"HTTP/1.1 200 OK\r\n"] * 2
