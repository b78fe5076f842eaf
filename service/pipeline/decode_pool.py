"""Decode and resize on a bounded pool of threads (PIL releases the GIL for most of both).

As in the batcher, all bookkeeping happens on the event loop's thread and classes are served by
weight, so a bulk ingest with large images cannot hold up interactive queries; an image whose
caller left before its turn is never decoded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from time import perf_counter, time_ns

from resight.errors import Unavailable
from service.domain.ports import Priority
from service.pipeline.device import ImageArray
from service.pipeline.weighted_queue import WeightedQueue
from service.telemetry import ABANDONED, STAGE_DURATION
from service.tracing import spans
from service.tracing.trace import Place, here

__all__ = ["DecodePool", "Prepare"]

Prepare = Callable[[bytes], ImageArray]
"""Encoded image to (H,W,3) uint8 at the encoder's size; raises `UndecodableImage` and the like."""

_ABANDONED = ABANDONED.labels("decode")
_DURATION = STAGE_DURATION.labels("decode")
_SMOOTHING = 0.05  # weight of the newest duration in the moving average
# What bulk images handed to a thread together may take, as predicted, and measure: to hand over a
# small one costs as much as a third of its decoding, and a query waits for one such group at most.
_TOGETHER_SECONDS = 0.002
_TOGETHER_BYTES = 65_536


@dataclass(slots=True, eq=False)
class _Job:
    data: bytes
    priority: Priority
    reply: asyncio.Future[ImageArray]
    place: Place | None


# An image or why there is none, seconds and the moment it was done (ns since the epoch); None: its
# caller left before its turn.
_Done = tuple[ImageArray | Exception, float, int] | None


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
        self._queue.push(priority, _Job(data, priority, reply, here()))
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
        while self._free and (jobs := self._next()):
            self._free -= 1
            done = asyncio.get_running_loop().run_in_executor(self._executor, self._on_thread, jobs)
            done.add_done_callback(partial(self._settle, jobs))

    def _next(self) -> list[_Job]:
        """What a free thread is given: a query alone, or a few small bulk images."""
        most = 1
        if self._seconds:
            fair = math.ceil(len(self._queue) / self._free)
            most = max(1, min(fair, int(_TOGETHER_SECONDS / self._seconds)))
        jobs: list[_Job] = []
        size = 0
        while len(jobs) < most and not (jobs and self._queue.depth(Priority.INTERACTIVE)):
            job = self._queue.pop()
            if job is None:
                break
            if job.reply.done():
                _ABANDONED.inc()
                continue
            jobs.append(job)
            size += len(job.data)
            if job.priority is Priority.INTERACTIVE or size > _TOGETHER_BYTES:
                break
        return jobs

    def _on_thread(self, jobs: list[_Job]) -> list[_Done]:
        return [None if job.reply.done() else self._prepared(job.data) for job in jobs]

    def _prepared(self, data: bytes) -> _Done:
        begun = perf_counter()
        try:
            image = self._prepare(data)
        except Exception as error:
            return error, perf_counter() - begun, time_ns()
        return image, perf_counter() - begun, time_ns()

    def _settle(self, jobs: list[_Job], done: asyncio.Future[list[_Done]]) -> None:
        self._free += 1
        lost = _stopped() if done.cancelled() else done.exception()
        if lost is not None:
            for job in jobs:
                _answer(job, lost)
        else:
            for job, result in zip(jobs, done.result(), strict=True):
                if result is None:
                    _ABANDONED.inc()
                    continue
                image, seconds, done_at = result
                _trace(job, image, seconds, done_at)
                if not isinstance(image, Exception):
                    _DURATION.observe(seconds)
                    self._seconds += (seconds - self._seconds) * (
                        _SMOOTHING if self._seconds else 1.0
                    )
                _answer(job, image)
        self._start()


def _trace(job: _Job, image: ImageArray | Exception, seconds: float, done_at: int) -> None:
    failed = type(image).__name__ if isinstance(image, Exception) else ""
    begun = done_at - int(seconds * 1e9)
    spans.interval("decode", job.place, begun, done_at, failed=failed, image_bytes=len(job.data))


def _answer(job: _Job, image: ImageArray | BaseException) -> None:
    if job.reply.done():
        return
    if isinstance(image, BaseException):
        job.reply.set_exception(image)
    else:
        job.reply.set_result(image)


def _stopped() -> Unavailable:
    return Unavailable("the service is stopping; send the request again", reason="STOPPING")
