"""The listener's end, as the log tells it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.responses import PlainTextResponse

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
