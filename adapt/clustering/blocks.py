"""Runs a function over blocks of rows on several threads and hands the results back in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["available_threads", "map_blocks", "one_product_a_thread", "row_blocks"]

Result = TypeVar("Result")


def available_threads() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def row_blocks(rows: int, block: int) -> list[tuple[int, int]]:
    """Half-open ranges that cover ``rows`` in order, each at most ``block`` long."""
    return [(start, min(start + block, rows)) for start in range(0, rows, block)]


def map_blocks(
    function: Callable[[int, int], Result], ranges: list[tuple[int, int]], *, threads: int
) -> Iterator[Result]:
    """Yield ``function(start, stop)`` for every range, in order.

    At most twice ``threads`` results wait for the consumer, so a slow consumer bounds memory.
    """
    if threads <= 1 or len(ranges) <= 1:
        for start, stop in ranges:
            yield function(start, stop)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for start, stop in ranges:
            waiting.append(pool.submit(function, start, stop))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def one_product_a_thread() -> Iterator[None]:
    """Within it numpy multiplies on the calling thread alone, in the whole process.

    For blocks that multiply small matrices on threads of their own: BLAS would spread each of them
    over every core and wait for it.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
