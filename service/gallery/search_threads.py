"""The threads that compare segments side by side, shared by every gallery of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import faiss

__all__ = ["SearchThreads"]

S = TypeVar("S")
T = TypeVar("T")


class SearchThreads:
    """Runs work on ``count`` threads, of which the caller's is one.

    faiss is told to use one thread on each: it shares a single query badly among several, and
    waits by spinning. The caller's thread gets its number back.

    Args:
        count: Threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = (
            ThreadPoolExecutor(
                count - 1, "segments", initializer=faiss.omp_set_num_threads, initargs=(1,)
            )
            if count > 1
            else None
        )

    def map(self, work: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """The results in order. Items are dealt out: to wake a thread takes as long as to plan many
        segments.
        """
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            return self._dealt(work, list(items))
        finally:
            faiss.omp_set_num_threads(before)

    def _dealt(self, work: Callable[[S], T], items: list[S]) -> list[T]:
        if self._pool is None or len(items) < 2:
            return [work(item) for item in items]
        running = [
            self._pool.submit(lambda share: [work(item) for item in share], share)
            for share in self.shards(items)[1:]
        ]
        try:
            dealt = [[work(item) for item in items[:: self.count]]]
        finally:
            # Nothing of this call may still run when it is over.
            wait(running)
        dealt += [future.result() for future in running]
        return [dealt[place % self.count][place // self.count] for place in range(len(items))]

    def shards(self, items: Sequence[S]) -> list[Sequence[S]]:
        """The items dealt out, one share a thread, none empty."""
        return [share for start in range(self.count) if (share := items[start :: self.count])]

    def close(self) -> None:
        """End the threads; nothing may be running."""
        if self._pool is not None:
            self._pool.shutdown()
