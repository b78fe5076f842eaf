"""The decode pool: bounded, fair, and it never decodes for nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from resight.errors import Unavailable, UndecodableImage
from service.domain.ports import Priority
from service.pipeline.decode_pool import DecodePool


class Recorder:
    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, data: bytes) -> np.ndarray:
        self.seen.append(data)
        if data == b"bad":
            raise UndecodableImage("bad", field="image")
        return np.frombuffer(data, np.uint8)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_order_bound_failure_and_abandonment(make_executor: Any) -> None:
    async def scenario() -> None:
        executor, recorder = make_executor(), Recorder()
        pool = DecodePool(recorder, executor=executor, threads=2, interactive_weight=2)
        bulk = [pool.submit(b"b%d" % n, priority=Priority.BULK) for n in range(4)]
        queries = [pool.submit(data, priority=Priority.INTERACTIVE) for data in (b"q0", b"bad")]
        left = pool.submit(b"left", priority=Priority.INTERACTIVE)
        assert len(executor.jobs) == 2  # b0 and b1 began before any query came
        left.cancel()
        while executor.step():
            await settle()
            assert len(executor.jobs) <= 2
        assert recorder.seen[:4] == [b"b0", b"b1", b"q0", b"bad"]
        assert b"left" not in recorder.seen
        assert [(await reply).tobytes() for reply in bulk] == [b"b0", b"b1", b"b2", b"b3"]
        assert (await queries[0]).tobytes() == b"q0"
        with pytest.raises(UndecodableImage):
            await queries[1]

    asyncio.run(scenario())


def test_closing_answers_those_who_wait(make_executor: Any) -> None:
    async def scenario() -> None:
        executor, recorder = make_executor(), Recorder()
        pool = DecodePool(recorder, executor=executor, threads=1)
        begun, waiting = (pool.submit(b"x", priority=Priority.BULK) for _ in range(2))
        pool.close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            pool.submit(b"y", priority=Priority.INTERACTIVE)
        executor.step()
        assert (await begun).tobytes() == b"x"

    asyncio.run(scenario())
