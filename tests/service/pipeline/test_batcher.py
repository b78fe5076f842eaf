"""Which images the batcher puts together, and when it hands them over."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from service.domain.ports import Priority
from service.pipeline.batcher import Batcher, BatchPolicy
from service.pipeline.latency import LatencyModel
from service.telemetry import REGISTRY
from tests.service.pipeline.stepped_batcher import Recorder, image, make, settle


def test_an_idle_batcher_sends_one_at_once_and_gathers_while_busy(
    make_executor: Any, make_clock: Any
) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=8)
        owner = asyncio.create_task(batcher.run())
        await settle()
        batcher.submit(image(0), priority=Priority.INTERACTIVE)
        await settle()
        assert len(executor.jobs) == 1
        batcher.submit(image(1), priority=Priority.INTERACTIVE)
        await settle()
        assert len(executor.jobs) == 2  # the prepared one
        for number in range(2, 7):
            batcher.submit(image(number), priority=Priority.INTERACTIVE)
        await settle()
        assert len(executor.jobs) == 2
        for _ in range(3):
            executor.step()
            await settle()
        assert recorder.batches == [[0], [1], [2, 3, 4, 5, 6]]
        batcher.close()
        await owner

    asyncio.run(scenario())


def test_hold_makes_one_batch_of_the_number_asked(make_executor: Any, make_clock: Any) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=8)
        batcher.hold(5)
        owner = asyncio.create_task(batcher.run())
        for number in range(5):
            assert not executor.jobs
            batcher.submit(image(number), priority=Priority.BULK)
            await settle()
        executor.step()
        await settle()
        assert recorder.batches == [[0, 1, 2, 3, 4]]
        batcher.close()
        await owner

    asyncio.run(scenario())


def test_the_wait_of_a_batch_is_that_of_its_oldest_image(
    make_executor: Any, make_clock: Any
) -> None:
    def told() -> tuple[float, float]:
        values = [
            REGISTRY.get_sample_value(f"resight_batch_wait_seconds_{part}")
            for part in ("sum", "count")
        ]
        return values[0] or 0.0, values[1] or 0.0

    async def work() -> None:
        executor, clock = make_executor(), make_clock()
        batcher, _ = make(executor, clock, max_batch=4)
        batcher.hold(3)
        owner = asyncio.create_task(batcher.run())
        before = told()
        replies = []
        for number in range(3):
            clock.now += 2.0
            replies.append(batcher.submit(image(number), priority=Priority.BULK))
        await settle()
        executor.step()
        await asyncio.gather(*replies)
        after = told()
        assert (after[0] - before[0], after[1] - before[1]) == (4.0, 1.0)
        batcher.close()
        await owner

    asyncio.run(work())


def test_classes_share_a_batch_by_weight(make_executor: Any, make_clock: Any) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=10, interactive_weight=4)
        batcher.hold(40)
        owner = asyncio.create_task(batcher.run())
        for number in range(20):
            batcher.submit(image(number), priority=Priority.BULK)
            batcher.submit(image(100 + number), priority=Priority.INTERACTIVE)
        await settle()
        executor.step()
        await settle()
        (first,) = recorder.batches
        assert [number >= 100 for number in first].count(True) == 8
        assert [number for number in first if number < 100] == [0, 1]
        batcher.close()
        while not owner.done():
            executor.step()
            await settle()

    asyncio.run(scenario())


def test_padding_fills_up_to_the_ladder_and_answers_only_the_real_images(
    make_executor: Any, make_clock: Any
) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=8, ladder=(1, 2, 4, 8))
        batcher.hold(3)
        owner = asyncio.create_task(batcher.run())
        replies = [batcher.submit(image(n), priority=Priority.BULK) for n in (7, 8, 9)]
        await settle()
        executor.step()
        await settle()
        assert recorder.batches == [[7, 8, 9, 0]]
        assert [reply.result().tolist() for reply in replies] == [[7.0], [8.0], [9.0]]
        batcher.close()
        await owner

    asyncio.run(scenario())


def test_while_queries_come_bulk_work_goes_in_short_batches_and_none_lies_prepared(
    make_executor: Any, make_clock: Any
) -> None:
    async def scenario() -> None:
        executor, clock = make_executor(), make_clock()
        recorder = Recorder()
        latency = LatencyModel()
        for size in (1, 8, 1, 8):
            latency.observe(size, 0.002 + 0.003 * size)  # three images take 11 ms

        def encode(images: np.ndarray) -> np.ndarray:
            clock.now += 0.002 + 0.003 * len(images)
            return recorder(images)

        batcher = Batcher(
            encode,
            executor=executor,
            policy=BatchPolicy(max_batch=8, bulk_seconds=0.012, calm_seconds=60.0),
            latency=latency,
            clock=clock,
        )
        owner = asyncio.create_task(batcher.run())
        bulk = [batcher.submit(image(n), priority=Priority.BULK) for n in range(40)]
        await settle()
        assert [len(images) for _, _, (images,) in executor.jobs] == [8, 8]  # calm: all at once

        query = batcher.submit(image(100), priority=Priority.INTERACTIVE)
        for _ in range(2):
            executor.step()
            await settle()
        assert len(executor.jobs) == 1  # what had been handed over is through
        executor.step()
        await settle()
        assert recorder.batches[2] == [100]  # it waits for no company
        assert query.result().tolist() == [100.0]
        for first in (16, 19):
            assert len(executor.jobs) == 1
            executor.step()
            await settle()
            assert recorder.batches[-1] == [first, first + 1, first + 2]

        # A query that comes while a bulk batch runs is handed over at once, behind that batch only.
        batcher.submit(image(101), priority=Priority.INTERACTIVE)
        await settle()
        assert [int(images[0][0, 0, 0]) for _, _, (images,) in executor.jobs] == [22, 101]

        clock.now += 61
        for _ in range(2):
            executor.step()
            await settle()
        assert len(executor.jobs) == 2
        executor.step()
        await settle()
        assert len(recorder.batches[-1]) == 8
        batcher.close()
        while not owner.done():
            executor.step()
            await settle()
        assert all(reply.done() for reply in bulk)

    asyncio.run(scenario())
