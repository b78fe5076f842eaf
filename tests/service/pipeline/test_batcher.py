"""The batcher's invariants, with the encoder's thread stepped by hand and the clock set."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import DeadlineExceeded, ResightError, Unavailable
from service.domain.ports import Priority
from service.pipeline.batcher import Batcher, BatchPolicy
from service.pipeline.device import DeviceFailureError
from service.pipeline.latency import LatencyModel
from service.telemetry import REGISTRY

POISON = 255


def image(number: int) -> np.ndarray:
    return np.full((1, 2, 3), number, np.uint8)


class Recorder:
    """An encoder that returns each image's number, and fails on POISON."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.dead = False

    def __call__(self, images: np.ndarray) -> np.ndarray:
        numbers = [int(one[0, 0, 0]) for one in images]
        self.batches.append(numbers)
        if self.dead or POISON in numbers:
            raise RuntimeError("cannot")
        return images[:, 0, 0, :1].astype(np.float32)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def make(executor: Any, clock: Any, **policy: Any) -> tuple[Batcher, Recorder]:
    recorder = Recorder()
    batcher = Batcher(
        recorder,
        executor=executor,
        policy=BatchPolicy(**policy),
        latency=LatencyModel(),
        clock=clock,
    )
    return batcher, recorder


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(Priority), st.sampled_from([None, 1, 5])),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.none()),
        st.tuples(st.just("step"), st.none(), st.none()),
        st.tuples(st.just("tick"), st.sampled_from([0, 1, 3]), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, max_batch=st.integers(1, 5), lanes=st.integers(1, 2))
def test_every_image_is_answered_once_in_order_and_within_bounds(
    make_executor: Any, make_clock: Any, operations: list[Any], max_batch: int, lanes: int
) -> None:
    executor, clock = make_executor(), make_clock()
    asyncio.run(_invariants(executor, clock, operations, max_batch, lanes))


async def _invariants(
    executor: Any, clock: Any, operations: list[Any], max_batch: int, lanes: int
) -> None:
    batcher, recorder = make(executor, clock, max_batch=max_batch, lanes=lanes)
    owner = asyncio.create_task(batcher.run())
    replies: list[asyncio.Future[np.ndarray]] = []
    classes: list[Priority] = []
    deadlines: list[float | None] = []
    encoded: list[tuple[int, float]] = []

    def step() -> bool:
        before = len(recorder.batches)
        stepped = executor.step()
        for batch in recorder.batches[before:]:
            encoded.extend((number, clock.now) for number in batch)
        return bool(stepped)

    cancelled_in_queue: set[int] = set()
    for kind, first, second in operations:
        if kind == "submit":
            deadline = None if second is None else clock.now + second
            replies.append(batcher.submit(image(len(replies)), priority=first, deadline=deadline))
            classes.append(first)
            deadlines.append(deadline)
        elif kind == "cancel" and first < len(replies):
            if replies[first].cancel() and not _dispatched(executor, first):
                cancelled_in_queue.add(first)
        elif kind == "step":
            step()
        elif kind == "tick":
            clock.now += first
        await settle()
        assert len(executor.jobs) <= lanes + 1
    batcher.close()
    while not owner.done():
        await settle()
        step()
        await settle()
    await owner

    assert all(reply.done() for reply in replies)
    numbers = [number for number, _ in encoded]
    assert len(numbers) == len(set(numbers)), "encoded twice"
    assert all(len(batch) <= max_batch for batch in recorder.batches)
    for priority in Priority:
        order = [number for number in numbers if classes[number] is priority]
        assert order == sorted(order), "not first in, first out within a class"
    assert not cancelled_in_queue & set(numbers), "encoded after its caller left"
    for number, reply in enumerate(replies):
        if reply.cancelled():
            continue
        if (error := reply.exception()) is None:
            assert reply.result().tolist() == [float(number)], "answer of another image"
        else:
            assert isinstance(error, DeadlineExceeded)
            assert deadlines[number] is not None
            assert number not in numbers


def _dispatched(executor: Any, number: int) -> bool:
    """Whether an outstanding batch holds the image."""
    return any(number == int(one[0, 0, 0]) for _, _, (images,) in executor.jobs for one in images)


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
