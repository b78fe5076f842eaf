"""The decode pool: bounded, fair, and it never decodes for nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from resight.errors import Unavailable, UndecodableImage
from service.domain.ports import Priority
from service.pipeline import decode_pool
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


def test_small_bulk_images_go_together_and_a_query_waits_for_none_to_join_it(
    make_executor: Any,
) -> None:
    async def scenario() -> None:
        executor, recorder = make_executor(), Recorder()
        pool = DecodePool(recorder, executor=executor, threads=1)
        # The first tells how long one takes: next to nothing.
        pool.submit(b"first", priority=Priority.BULK)
        held = [pool.submit(b"b%d" % n, priority=Priority.BULK) for n in range(3)]
        held.append(pool.submit(b"bad", priority=Priority.BULK))
        held[1].cancel()
        executor.step()
        await settle()
        assert len(executor.jobs) == 1
        later = [pool.submit(b"c%d" % n, priority=Priority.BULK) for n in range(2)]
        query = pool.submit(b"q", priority=Priority.INTERACTIVE)
        held[2].cancel()
        executor.step()
        await settle()
        # Of one group, whoever left, before it was made up or after, is not decoded.
        assert recorder.seen == [b"first", b"b0", b"bad"]
        assert (await held[0]).tobytes() == b"b0"
        with pytest.raises(UndecodableImage):
            await held[3]
        executor.step()
        await settle()
        assert recorder.seen[3:] == [b"q"], "alone, and before bulk work that came first"
        assert (await query).tobytes() == b"q"
        executor.step()
        await settle()
        assert [(await reply).tobytes() for reply in later] == [b"c0", b"c1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "groups"), [(10, [1, 4]), (70_000, [1, 1, 1, 1, 1])])
def test_large_images_go_alone(make_executor: Any, size: int, groups: list[int]) -> None:
    async def scenario() -> None:
        executor, recorder = make_executor(), Recorder()
        pool = DecodePool(recorder, executor=executor, threads=1)
        replies = [pool.submit(b"x" * size, priority=Priority.BULK) for _ in range(5)]
        steps = []
        before = 0
        while executor.step():
            await settle()
            steps.append(len(recorder.seen) - before)
            before = len(recorder.seen)
        assert steps == groups
        await asyncio.gather(*replies)

    asyncio.run(scenario())


def test_slow_images_go_alone_and_free_threads_share(make_executor: Any, monkeypatch: Any) -> None:
    async def scenario(seconds: float) -> list[int]:
        now = [0.0]
        monkeypatch.setattr(decode_pool, "perf_counter", lambda: now[0])
        recorder = Recorder()

        def slow(data: bytes) -> np.ndarray:
            now[0] += seconds
            return recorder(data)

        executor = make_executor()
        pool = DecodePool(slow, executor=executor, threads=2)
        for n in range(8):
            pool.submit(b"%d" % n, priority=Priority.BULK)
        groups, before = [], 0
        while executor.step():
            await settle()
            groups.append(len(recorder.seen) - before)
            before = len(recorder.seen)
        return groups

    # Two begin at once, and six wait: the first thread that is free takes what fits.
    assert asyncio.run(scenario(0.0001)) == [1, 1, 6]
    assert asyncio.run(scenario(0.001)) == [1, 1, 2, 2, 2]
    assert asyncio.run(scenario(0.01)) == [1] * 8
