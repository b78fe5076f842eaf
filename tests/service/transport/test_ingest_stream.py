"""Flow control and endings of one ingest stream, with the use case stepped by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from resight.errors import InvalidArgument, Unauthenticated, Unavailable
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from service import call
from service.application.ingest import IngestResult, Outcome
from service.call import Call
from service.transport.grpc.ingest_room import IngestRoom
from service.transport.grpc.ingest_stream import IngestStream


class SteppedIngest:
    """Keeps submitted items until released."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, asyncio.Future[IngestResult]]] = []
        self.most = 0

    async def submit(self, item: Any) -> IngestResult:
        future: asyncio.Future[IngestResult] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, future))
        self.most = max(self.most, sum(not f.done() for _, f in self.waiting))
        return await future

    def release(self, position: int = 0) -> None:
        _, future = self.waiting.pop(position)
        future.set_result(IngestResult(Outcome.ACCEPTED, UUID(int=1)))


def stream_of(
    ingest: Any,
    items: AsyncIterator[IngestCropsRequest],
    *,
    limit: int = 8,
    draining: asyncio.Event | None = None,
    room: IngestRoom | None = None,
) -> IngestStream:
    return IngestStream(
        ingest,
        items,
        limit=limit,
        room=room or IngestRoom(items=1000, size=10**9),
        draining=draining or asyncio.Event(),
    )


async def requests(count: int, *, forever: bool = False) -> AsyncIterator[IngestCropsRequest]:
    for sequence in range(count):
        yield IngestCropsRequest(sequence=sequence)
    if forever:
        await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_at_most_limit_items_are_in_flight_and_each_is_answered_once() -> None:
    async def scenario() -> None:
        ingest = SteppedIngest()
        stream = stream_of(ingest, requests(50))
        seen: list[int] = []

        async def read() -> None:
            async for answer in stream.answers():
                assert answer.outcome == IngestCropsResponse.OUTCOME_ACCEPTED
                seen.append(answer.sequence)

        reader = asyncio.create_task(read())
        while not reader.done():
            await settle()
            if ingest.waiting:
                ingest.release(len(ingest.waiting) - 1)
        await reader
        assert sorted(seen) == list(range(50))
        assert seen != sorted(seen)  # answered as they finish, not as they came
        assert ingest.most == 8

    asyncio.run(scenario())


def test_a_client_that_reads_nothing_holds_back_its_own_stream() -> None:
    async def scenario() -> None:
        ingest = SteppedIngest()
        stream = stream_of(ingest, requests(50), limit=4)
        answers = stream.answers()
        first = asyncio.create_task(anext(answers))
        submitted = 0
        for _ in range(30):
            await settle()
            submitted += len(ingest.waiting)
            while ingest.waiting:
                ingest.release()
        await first
        assert submitted == 4
        await answers.aclose()

    asyncio.run(scenario())


def test_draining_answers_what_is_in_flight_then_ends_unavailable() -> None:
    async def scenario() -> None:
        ingest, draining = SteppedIngest(), asyncio.Event()
        stream = stream_of(ingest, requests(3, forever=True), draining=draining)
        seen: list[int] = []

        async def read() -> None:
            async for answer in stream.answers():
                assert answer.outcome == IngestCropsResponse.OUTCOME_ACCEPTED
                seen.append(answer.sequence)

        reader = asyncio.create_task(read())
        await settle()
        draining.set()
        await settle()
        assert not reader.done()
        while ingest.waiting:
            ingest.release()
        with pytest.raises(Unavailable):
            await reader
        assert sorted(seen) == [0, 1, 2]

    asyncio.run(scenario())


def test_lapsing_answers_what_is_in_flight_and_reads_no_more() -> None:
    async def scenario() -> None:
        ingest, begun = SteppedIngest(), Call("grpc", "GalleryService/IngestCrops")
        call.begin(begun)
        read: list[int] = []

        async def items() -> AsyncIterator[IngestCropsRequest]:
            async for request in requests(3):
                read.append(request.sequence)
                yield request
            await more.wait()
            read.append(3)
            yield IngestCropsRequest(sequence=3)

        more = asyncio.Event()
        seen: list[int] = []

        async def whole() -> None:
            async for answer in stream_of(ingest, items()).answers():
                assert answer.outcome == IngestCropsResponse.OUTCOME_ACCEPTED
                seen.append(answer.sequence)

        reader = asyncio.create_task(whole())
        await settle()
        begun.lapse(Unauthenticated("revoked"))
        more.set()
        await settle()
        assert not reader.done()
        while ingest.waiting:
            ingest.release()
        with pytest.raises(Unauthenticated, match="revoked"):
            await reader
        assert sorted(seen) == read == [0, 1, 2]

    asyncio.run(scenario())


def test_a_message_that_cannot_be_read_ends_the_stream_after_the_answers() -> None:
    async def scenario() -> None:
        ingest = SteppedIngest()

        async def items() -> AsyncIterator[IngestCropsRequest]:
            yield IngestCropsRequest(sequence=1)
            raise InvalidArgument("the message cannot be read")

        answers = stream_of(ingest, items()).answers()
        first = asyncio.create_task(anext(answers))
        await settle()
        ingest.release()
        assert (await first).sequence == 1
        with pytest.raises(InvalidArgument):
            await anext(answers)

    asyncio.run(scenario())


def test_items_read_while_draining_are_to_be_sent_again() -> None:
    async def scenario() -> None:
        ingest, draining = SteppedIngest(), asyncio.Event()
        gate = asyncio.Event()

        async def late() -> AsyncIterator[IngestCropsRequest]:
            yield IngestCropsRequest(sequence=1)
            await gate.wait()
            yield IngestCropsRequest(sequence=2)

        answers = stream_of(ingest, late(), draining=draining).answers()
        first = asyncio.create_task(anext(answers))
        await settle()
        draining.set()
        gate.set()
        answer = await first
        assert (answer.sequence, answer.reason) == (2, "DRAINING")
        assert answer.outcome == IngestCropsResponse.OUTCOME_RETRY
        ingest.release()
        assert (await anext(answers)).sequence == 1
        await answers.aclose()

    asyncio.run(scenario())


def test_a_sequence_in_flight_twice_is_rejected() -> None:
    async def scenario() -> None:
        ingest = SteppedIngest()

        async def twice() -> AsyncIterator[IngestCropsRequest]:
            yield IngestCropsRequest(sequence=7)
            yield IngestCropsRequest(sequence=7)

        answers = stream_of(ingest, twice()).answers()
        assert (await anext(answers)).reason == "SEQUENCE_REUSED"
        ingest.release()
        assert (await anext(answers)).outcome == IngestCropsResponse.OUTCOME_ACCEPTED
        with pytest.raises(StopAsyncIteration):
            await anext(answers)

    asyncio.run(scenario())


def test_leaving_cancels_what_is_in_flight() -> None:
    async def scenario() -> None:
        ingest = SteppedIngest()
        stream = stream_of(ingest, requests(3))
        answers = stream.answers()
        first = asyncio.create_task(anext(answers))
        await settle()
        ingest.release()
        await first
        await answers.aclose()
        await settle()
        assert all(future.cancelled() for _, future in ingest.waiting)

    asyncio.run(scenario())


def images(*sizes: int) -> AsyncIterator[IngestCropsRequest]:
    async def items() -> AsyncIterator[IngestCropsRequest]:
        for sequence, size in enumerate(sizes):
            yield IngestCropsRequest(sequence=sequence, image=bytes(size))

    return items()


def test_all_streams_together_stay_within_the_room() -> None:
    async def scenario() -> None:
        ingest, room = SteppedIngest(), IngestRoom(items=5, size=100)
        streams = [stream_of(ingest, images(*[30] * 20), room=room) for _ in range(3)]
        seen: Counter[int] = Counter()
        begun: list[int] = []

        async def read(number: int) -> None:
            async for _ in streams[number].answers():
                seen[number] += 1

        readers = [asyncio.create_task(read(number)) for number in range(3)]
        while not all(reader.done() for reader in readers):
            await settle()
            assert len(ingest.waiting) <= 3  # of 30 bytes each
            assert room.bytes <= 100
            if ingest.waiting:
                ingest.release()
            begun.append(min(seen[number] for number in range(3)))
        assert seen == {0: 20, 1: 20, 2: 20}
        # They take turns: none is far behind when the others are done with half of theirs.
        assert begun[len(begun) // 2] >= 8
        assert (room.items, room.bytes) == (0, 0)

    asyncio.run(scenario())


def test_an_item_larger_than_the_room_passes_alone() -> None:
    async def scenario() -> None:
        ingest, room = SteppedIngest(), IngestRoom(items=5, size=100)
        answers = stream_of(ingest, images(500, 10, 10), room=room).answers()
        first = asyncio.create_task(anext(answers))
        await settle()
        assert len(ingest.waiting) == 1
        ingest.release()
        await first
        await settle()
        assert len(ingest.waiting) == 2
        await answers.aclose()
        await settle()
        assert (room.items, room.bytes) == (0, 0)

    asyncio.run(scenario())


def test_a_stream_that_leaves_while_it_waits_gives_its_room_and_turn_back() -> None:
    async def scenario() -> None:
        ingest, room = SteppedIngest(), IngestRoom(items=2, size=1000)
        streams = [stream_of(ingest, images(1, 1), room=room).answers() for _ in range(3)]
        readers = [asyncio.create_task(anext(stream)) for stream in streams]
        await settle()
        assert len(ingest.waiting) == room.items == 2
        for reader, stream in zip(readers[:2], streams[:2], strict=True):
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await stream.aclose()
        await settle()
        assert room.items == 2  # both items of the third stream
        for _, future in list(ingest.waiting):
            if not future.done():
                future.set_result(IngestResult(Outcome.ACCEPTED, UUID(int=1)))
        await readers[2]
        await streams[2].aclose()
        assert room.items == 0

    asyncio.run(scenario())
