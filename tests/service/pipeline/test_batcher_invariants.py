"""Whatever is asked of the batcher in whatever order: its invariants."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import DeadlineExceeded
from service.domain.ports import Priority
from tests.service.pipeline.stepped_batcher import image, make, settle

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
