"""One bidirectional ingest: many items in flight, each answered once, as it commits.

Flow control: a permit is taken to read an item and given back when its answer has been written,
so at most ``limit`` items of a stream are in the process, however slowly the client reads; an item
then waits for room among those of all streams. Meanwhile the stream is not read on, and gRPC's own
window holds the client back.

Ends: the client half-closes, then the items in flight are answered and the stream ends OK; the
client leaves, then the items in flight are abandoned (one that is already committing is stored,
unacknowledged); the service drains, then items in flight are answered as usual, items read from
then on are answered RETRY, and when nothing is in flight the stream ends UNAVAILABLE; the
credentials lapse, or a message cannot be read, then nothing more is read, items in flight are
answered, and the stream ends with that error. An item without an answer was not accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from resight.errors import InvalidArgument, ResightError, Unavailable
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from service import call
from service.application.ingest import Ingest, Outcome
from service.telemetry import INGESTED
from service.tracing import spans
from service.transport.grpc.convert import ingest_answer, ingest_item
from service.transport.grpc.ingest_room import IngestRoom

__all__ = ["IngestStream"]

_INGESTED = {outcome: INGESTED.labels(outcome.value) for outcome in Outcome}


class IngestStream:
    """Serves one stream; ``answers`` is called once.

    Args:
        ingest: The use case; one call an item.
        requests: What the client sends.
        limit: Most items in flight.
        room: What all streams may have in work.
        draining: Set when the service begins to stop.
    """

    def __init__(
        self,
        ingest: Ingest,
        requests: AsyncIterator[IngestCropsRequest],
        *,
        limit: int,
        room: IngestRoom,
        draining: asyncio.Event,
    ) -> None:
        self._ingest = ingest
        self._room = room
        self._requests = requests
        self._draining = draining
        self._permits = asyncio.Semaphore(limit)
        # Each with the gallery that its item named.
        self._answers: asyncio.Queue[tuple[IngestCropsResponse, str] | None] = asyncio.Queue()
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def answers(self) -> AsyncGenerator[IngestCropsResponse, None]:
        """The answers, in the order the items finish.

        Raises:
            Unavailable: The service drains; everything in flight has been answered.
            ResightError: The stream's credentials have lapsed, or a message cannot be read;
                likewise.
        """
        receiver = asyncio.create_task(self._receive())
        reader = asyncio.create_task(self._until_answered(receiver))
        drainer = asyncio.create_task(self._stop_when_drained(reader))
        begun = call.current()
        begun.on_lapse = receiver.cancel
        try:
            while (answered := await self._answers.get()) is not None:
                _note(*answered)
                yield answered[0]
                self._permits.release()
            drainer.cancel()
            if begun.lapsed is not None:
                raise begun.lapsed
            if reader.cancelling():
                raise Unavailable(
                    "the service is stopping; items without an answer were not accepted, "
                    "send them again",
                    reason="DRAINING",
                )
            await receiver
        finally:
            for task in (receiver, reader, drainer, *self._in_flight.values()):
                task.cancel()
            if receiver.done() and not receiver.cancelled():
                receiver.exception()  # told already, or nobody is there to be told

    async def _receive(self) -> None:
        requests = aiter(self._requests)
        while True:
            await self._permits.acquire()
            request = await anext(requests, None)
            if request is None:
                break
            await self._begin(request)

    async def _until_answered(self, receiver: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait((receiver,))
            await self._idle.wait()
        finally:
            self._answers.put_nowait(None)

    async def _stop_when_drained(self, reader: asyncio.Task[None]) -> None:
        await self._draining.wait()
        await self._idle.wait()
        reader.cancel()

    async def _begin(self, request: IngestCropsRequest) -> None:
        sequence = request.sequence
        if self._draining.is_set():
            self._answers.put_nowait((_draining(sequence), request.gallery))
        elif sequence in self._in_flight:
            reused = InvalidArgument(
                f"sequence {sequence} is already in flight on this stream; number items uniquely",
                field="sequence",
                reason="SEQUENCE_REUSED",
            )
            self._answers.put_nowait((_rejected(sequence, reused), request.gallery))
        else:
            size = len(request.image)
            await self._room.enter(size)
            if self._draining.is_set():
                self._room.leave(size)
                self._answers.put_nowait((_draining(sequence), request.gallery))
                return
            self._idle.clear()
            task = asyncio.create_task(self._submit(request))
            # Also of a task that is cancelled before it begins.
            task.add_done_callback(lambda _: self._room.leave(size))
            self._in_flight[sequence] = task

    async def _submit(self, request: IngestCropsRequest) -> None:
        sequence = request.sequence
        try:
            item = ingest_item(request)
        except ResightError as error:
            _INGESTED[Outcome.REJECTED].inc()
            answer = _rejected(sequence, error)
        else:
            with spans.section("ingest item"):
                result = await self._ingest.submit(item)
            _INGESTED[result.outcome].inc()
            answer = ingest_answer(sequence, result)
        self._answers.put_nowait((answer, request.gallery))
        del self._in_flight[sequence]
        if not self._in_flight:
            self._idle.set()


def _note(answer: IngestCropsResponse, gallery: str) -> None:
    name = IngestCropsResponse.Outcome.Name(answer.outcome).removeprefix("OUTCOME_").lower()
    call.current().count(name, gallery)
    if name in ("rejected", "retry"):
        denied = answer.reason.endswith("_NOT_ALLOWED")
        call.current().note_fault(answer.reason, gallery, denied=denied)


def _rejected(sequence: int, error: ResightError) -> IngestCropsResponse:
    return IngestCropsResponse(
        sequence=sequence,
        outcome=IngestCropsResponse.OUTCOME_REJECTED,
        reason=error.reason,
        message=error.message,
    )


def _draining(sequence: int) -> IngestCropsResponse:
    return IngestCropsResponse(
        sequence=sequence,
        outcome=IngestCropsResponse.OUTCOME_RETRY,
        reason="DRAINING",
        message="the service is stopping; send the crop again",
    )
