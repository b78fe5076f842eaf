"""Images that fail, an encoder that is dead and deadlines that have passed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resight.errors import DeadlineExceeded, ResightError, Unavailable
from service.domain.ports import Priority
from service.pipeline.device import DeviceFailureError
from tests.service.pipeline.stepped_batcher import POISON, image, make, settle


def test_only_the_poisonous_image_fails(make_executor: Any, make_clock: Any) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=8)
        batcher.hold(7)
        owner = asyncio.create_task(batcher.run())
        numbers = [1, 2, POISON, 4, 5, 6, 7]
        replies = [batcher.submit(image(n), priority=Priority.INTERACTIVE) for n in numbers]
        await settle()
        executor.step()
        await settle()
        for number, reply in zip(numbers, replies, strict=True):
            if number == POISON:
                with pytest.raises(ResightError, match="this image") as caught:
                    reply.result()
                assert caught.value.reason == "ENCODER_FAILED"
            else:
                assert reply.result().tolist() == [float(number)]
        assert len(recorder.batches) <= 2 * len(numbers) - 1
        batcher.close()
        await owner

    asyncio.run(scenario())


def test_a_lone_poisonous_image_does_not_end_the_service() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher, _ = make(executor, asyncio.get_running_loop().time)
            owner = asyncio.create_task(batcher.run())
            with pytest.raises(ResightError, match="this image"):
                await batcher.submit(image(POISON), priority=Priority.INTERACTIVE)
            good = await batcher.submit(image(3), priority=Priority.INTERACTIVE)
            assert good.tolist() == [3.0]
            batcher.close()
            await owner

    asyncio.run(scenario())


def test_a_dead_encoder_ends_the_stage_and_answers_everyone(
    make_executor: Any, make_clock: Any
) -> None:
    async def scenario() -> None:
        executor = make_executor()
        batcher, recorder = make(executor, make_clock(), max_batch=2)
        recorder.dead = True
        owner = asyncio.create_task(batcher.run())
        replies = [batcher.submit(image(n), priority=Priority.INTERACTIVE) for n in range(9)]
        await settle()
        while not owner.done():
            executor.step()
            await settle()
        with pytest.raises(DeviceFailureError, match="blank image"):
            await owner
        for reply in replies:
            with pytest.raises(Unavailable):
                reply.result()
        with pytest.raises(Unavailable):
            batcher.submit(image(0), priority=Priority.INTERACTIVE)

    asyncio.run(scenario())


def test_a_passed_deadline_is_refused_without_encoding(make_executor: Any, make_clock: Any) -> None:
    async def scenario() -> None:
        executor, clock = make_executor(), make_clock()
        batcher, recorder = make(executor, clock, max_batch=1)
        owner = asyncio.create_task(batcher.run())
        replies = [
            batcher.submit(image(n), priority=Priority.INTERACTIVE, deadline=clock.now + 1)
            for n in range(4)
        ]
        await settle()
        clock.now += 2  # two are with the encoder, two still wait
        while executor.step():
            await settle()
        assert recorder.batches == [[0], [1]]
        for reply in replies[2:]:
            with pytest.raises(DeadlineExceeded):
                reply.result()
        batcher.close()
        await owner

    asyncio.run(scenario())
