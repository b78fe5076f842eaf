"""The dynamic batcher: many callers with one image each, one encoder that likes batches.

Design. One coroutine, ``run``, owns the queue. It first reserves a slot and only then collects a
batch. There are ``lanes + 1`` slots: one batch runs on each encoder thread and one lies prepared,
so a thread never waits for the event loop, while everything else keeps accumulating. The batch
size therefore grows by itself with the load, an idle service sends a batch of one at once, and
there is no timer, no polling and no sleep anywhere. (The ordering is that of Hugging Face's
text-embeddings-inference; priorities, deadlines and isolation of a bad image are ours.)

A query cannot overtake what has been handed to the encoder, only what waits. So while queries come
(one within ``calm_seconds``), bulk images fill a batch only as far as it takes ``bulk_seconds``,
none of them fills up a batch that has a query, and no batch of bulk images lies prepared: a query
waits for a part of one short batch, not for two full ones. Without queries bulk work has the
encoder to itself and full batches.

Invariants, each held by a property test:

* every submitted image is answered exactly once: vector, error, or cancelled by its caller;
* within a class images are encoded in the order of submission;
* a batch has at most ``max_batch`` images, and at most ``lanes + 1`` batches are outstanding;
* an image whose caller left, or whose deadline cannot be met, is never encoded;
* no class starves: see ``weighted_queue``.

Everything but the encoder call happens on the event loop's thread, so nothing is locked. The
number of waiting images is bounded by admission, not here. The ladder of batch sizes pads only
when told to: on a CPU the time of a batch is proportional to its size (docs/decisions/0051), so
padding would only burn time; with CUDA graphs or engine profiles fixed sizes pay.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from time import monotonic, time_ns

from resight.errors import DeadlineExceeded, Unavailable
from service.domain.ports import Priority
from service.pipeline.batch_spans import Traced, record_batch, traced
from service.pipeline.device import (
    DeviceFailureError,
    Encode,
    ImageArray,
    Outcome,
    Vector,
    encode_isolating,
)
from service.pipeline.latency import LatencyModel
from service.pipeline.weighted_queue import WeightedQueue
from service.telemetry import (
    ABANDONED,
    BATCH_SIZE,
    BATCH_WAIT,
    QUEUE_DEPTH,
    REJECTED,
    STAGE_DURATION,
)

__all__ = ["BatchPolicy", "Batcher"]


_QUEUED = STAGE_DURATION.labels("queue")
_DEPTH = {priority: QUEUE_DEPTH.labels(priority.name.lower()) for priority in Priority}


@dataclass(frozen=True)
class BatchPolicy:
    """How batches are made.

    Args:
        max_batch: Most images in a batch.
        lanes: Encoder threads; each runs one batch at a time.
        interactive_weight: Interactive images served for each bulk image when both wait.
        ladder: Ascending sizes to pad a batch to; empty: no padding.
        bulk_seconds: What a batch filled with bulk images may take while queries come.
        calm_seconds: After so long without a query bulk images fill batches to the end.
    """

    max_batch: int = 8
    lanes: int = 1
    interactive_weight: int = 4
    ladder: tuple[int, ...] = ()
    bulk_seconds: float = 0.01
    calm_seconds: float = 60.0


@dataclass(slots=True, eq=False)
class _Entry:
    image: ImageArray
    reply: asyncio.Future[Vector]
    deadline: float | None
    queued: float
    traced: Traced | None


class Batcher:
    """See the module's page. Create and use it on one event loop.

    Args:
        encode: The encoder, called on ``executor``.
        executor: Has ``policy.lanes`` threads of its own; a test may step it by hand.
        latency: Learns the encoder's speed, and tells it to admission.
        clock: Seconds on the clock that deadlines are given in.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        executor: Executor,
        policy: BatchPolicy,
        latency: LatencyModel,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._encode = encode
        self._executor = executor
        self._policy = policy
        self._latency = latency
        self._clock = clock
        self._queue: WeightedQueue[Priority, _Entry] = WeightedQueue(
            {Priority.INTERACTIVE: policy.interactive_weight, Priority.BULK: 1}
        )
        self._slots = asyncio.Semaphore(policy.lanes + 1)
        self._changed = asyncio.Event()
        self._hold = 1
        self._running = 0
        self._asked = -math.inf
        self._closed = False
        self._failure: DeviceFailureError | None = None

    def submit(
        self, image: ImageArray, *, priority: Priority, deadline: float | None = None
    ) -> asyncio.Future[Vector]:
        """Queue an image, (H,W,3) uint8; the reply is its (D,) float32 vector.

        Cancelling the reply abandons the image. The reply raises `DeadlineExceeded` when the
        deadline cannot be met, `ResightError` when the encoder fails on this very image and
        `Unavailable` when the batcher stops first.
        """
        if self._closed:
            raise _stopped()
        reply: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        now = self._clock()
        if priority is Priority.INTERACTIVE:
            self._asked = now
        self._queue.push(priority, _Entry(image, reply, deadline, now, traced()))
        _DEPTH[priority].set(self._queue.depth(priority))
        self._changed.set()
        return reply

    def hold(self, queued: int) -> None:
        """Collect nothing until so many images wait (once): makes batches predictable in tests."""
        self._hold = queued

    def close(self) -> None:
        """Take no more images; ``run`` returns when those waiting are answered."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Serve until closed and empty.

        Raises:
            DeviceFailureError: The encoder died; everything waiting has been answered.
        """
        try:
            while True:
                await self._slots.acquire()
                batch = await self._collect()
                if not batch:
                    break
                self._dispatch(batch)
            for _ in range(self._policy.lanes):
                await self._slots.acquire()
            if self._failure is not None:
                raise self._failure
        finally:
            self._closed = True
            for entry in self._queue.drain():
                _fail(entry, _stopped())
            self._publish_depth()

    async def _collect(self) -> list[_Entry]:
        """The next batch; empty when the batcher is to end."""
        while self._failure is None:
            if self._closed or (len(self._queue) >= self._hold and self._may_begin()):
                self._hold = 1
                batch = self._take()
                if batch or self._closed:
                    return batch
            self._changed.clear()
            await self._changed.wait()
        return []

    def _may_begin(self) -> bool:
        """Whether the next batch may be handed over: not bulk work alone behind a running batch."""
        waiting = self._queue.depth(Priority.INTERACTIVE)
        return bool(waiting) or self._running < self._policy.lanes or self._calm(self._clock())

    def _calm(self, now: float) -> bool:
        return now - self._asked > self._policy.calm_seconds

    def _bulk_limit(self, now: float) -> int:
        """Images up to which a batch is filled with bulk ones."""
        if self._calm(now):
            return self._policy.max_batch
        fixed, each = self._latency.coefficients()
        room = self._policy.bulk_seconds - fixed
        return max(1, int(room / each) if each else self._policy.max_batch)

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        now = self._clock()
        limit = self._bulk_limit(now)
        soonest = now + self._latency.seconds(1, max_batch=self._policy.max_batch)
        while len(batch) < self._policy.max_batch:
            queries = self._queue.depth(Priority.INTERACTIVE)
            if not queries and len(batch) >= limit:
                break
            entry = self._queue.pop()
            if entry is None:
                break
            if entry.reply.done():
                ABANDONED.labels("queue").inc()
            elif entry.deadline is not None and entry.deadline < soonest:
                REJECTED.labels("deadline").inc()
                _fail(entry, DeadlineExceeded("the deadline passes before the image is embedded"))
            else:
                _QUEUED.observe(now - entry.queued)
                batch.append(entry)
                if queries > self._queue.depth(Priority.INTERACTIVE):
                    # What comes along in a query's batch, the query waits for.
                    limit = 0
        self._publish_depth()
        return batch

    def _dispatch(self, batch: list[_Entry]) -> None:
        BATCH_SIZE.observe(len(batch))
        BATCH_WAIT.observe(self._clock() - min(entry.queued for entry in batch))
        self._running += 1
        job = asyncio.get_running_loop().run_in_executor(
            self._executor, self._on_device, [entry.image for entry in batch]
        )
        job.add_done_callback(partial(self._settle, batch))

    def _on_device(self, images: list[ImageArray]) -> tuple[list[Outcome], float, int]:
        began, begun = time_ns(), self._clock()
        outcomes = encode_isolating(self._encode, images, sizes=self._policy.ladder)
        return outcomes, self._clock() - begun, began

    def _settle(
        self, batch: list[_Entry], job: asyncio.Future[tuple[list[Outcome], float, int]]
    ) -> None:
        self._slots.release()
        self._running -= 1
        self._changed.set()
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        if error is not None:
            self._failure = (
                error
                if isinstance(error, DeviceFailureError)
                else DeviceFailureError(f"the encoder thread ended: {error!r}")
            )
            self._closed = True
            for entry in batch:
                _fail(entry, _stopped())
            return
        outcomes, seconds, began = job.result()
        STAGE_DURATION.labels("embed").observe(seconds)
        self._latency.observe(len(batch), seconds)
        record_batch([entry.traced for entry in batch], outcomes, began, seconds)
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _fail(entry, outcome)
            elif not entry.reply.done():
                entry.reply.set_result(outcome)

    def _publish_depth(self) -> None:
        for priority, gauge in _DEPTH.items():
            gauge.set(self._queue.depth(priority))


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.reply.done():
        entry.reply.set_exception(error)


def _stopped() -> Unavailable:
    return Unavailable("the encoder is stopping; send the request again", reason="STOPPING")
