"""Decode and resize on a bounded pool of threads (PIL releases the GIL for most of both).

As in the batcher, all bookkeeping happens on the event loop's thread and classes are served by
weight, so a bulk ingest with large images cannot hold up interactive queries; an image whose
caller left before its turn is never decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from resight.errors import Unavailable
from service.domain.ports import Priority
from service.pipeline.device import ImageArray
from service.pipeline.weighted_queue import WeightedQueue
from service.telemetry import ABANDONED, STAGE_DURATION

__all__ = ["DecodePool", "Prepare"]

Prepare = Callable[[bytes], ImageArray]
"""Encoded image to (H,W,3) uint8 at the encoder's size; raises `UndecodableImage` and the like."""

_SMOOTHING = 0.05  # weight of the newest duration in the moving average


@dataclass(slots=True, eq=False)
class _Job:
    data: bytes
    reply: asyncio.Future[ImageArray]


class DecodePool:
    """Prepares images, interactive ones first by weight.

    Args:
        prepare: The one decode + resize path of the project (`resight.crops.prepare`).
        executor: Has at least ``threads`` threads.
        threads: Images prepared at the same time.
        interactive_weight: Interactive images prepared for each bulk image when both wait.
    """

    def __init__(
        self, prepare: Prepare, *, executor: Executor, threads: int, interactive_weight: int = 4
    ) -> None:
        self._prepare = prepare
        self._executor = executor
        self._threads = threads
        self._free = threads
        self._closed = False
        self._seconds = 0.0
        self._queue: WeightedQueue[Priority, _Job] = WeightedQueue(
            {Priority.INTERACTIVE: interactive_weight, Priority.BULK: 1}
        )

    def submit(self, data: bytes, *, priority: Priority) -> asyncio.Future[ImageArray]:
        """Queue an encoded image; the reply is the prepared one or what ``prepare`` raised."""
        if self._closed:
            raise _stopped()
        reply: asyncio.Future[ImageArray] = asyncio.get_running_loop().create_future()
        self._queue.push(priority, _Job(data, reply))
        self._start()
        return reply

    def close(self) -> None:
        """Take no more images; those that wait are answered `Unavailable`."""
        self._closed = True
        for job in self._queue.drain():
            if not job.reply.done():
                job.reply.set_exception(_stopped())

    def expected_seconds(self, images: int) -> float:
        """Predicted time for so many images, from a moving average."""
        return self._seconds * images / self._threads

    def _start(self) -> None:
        while self._free and (job := self._queue.pop()) is not None:
            if job.reply.done():
                ABANDONED.labels("decode").inc()
                continue
            self._free -= 1
            done = asyncio.get_running_loop().run_in_executor(
                self._executor, self._on_thread, job.data
            )
            done.add_done_callback(partial(self._settle, job))

    def _on_thread(self, data: bytes) -> tuple[ImageArray, float]:
        begun = perf_counter()
        image = self._prepare(data)
        return image, perf_counter() - begun

    def _settle(self, job: _Job, done: asyncio.Future[tuple[ImageArray, float]]) -> None:
        self._free += 1
        if done.cancelled():
            if not job.reply.done():
                job.reply.set_exception(_stopped())
        elif (error := done.exception()) is not None:
            if not job.reply.done():
                job.reply.set_exception(error)
        else:
            image, seconds = done.result()
            STAGE_DURATION.labels("decode").observe(seconds)
            self._seconds += (seconds - self._seconds) * (_SMOOTHING if self._seconds else 1.0)
            if not job.reply.done():
                job.reply.set_result(image)
        self._start()


def _stopped() -> Unavailable:
    return Unavailable("the service is stopping; send the request again", reason="STOPPING")
