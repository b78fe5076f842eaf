"""Blocks of rows on several threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from adapt.clustering.blocks import map_blocks, one_product_a_thread, row_blocks


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_small_products_stay_on_their_thread_and_later_ones_do_not() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("BLAS without threads")
        with one_product_a_thread():
            assert blas_threads() == {1}
            with one_product_a_thread():
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_few_wait(threads: int) -> None:
    lock = threading.Lock()
    made, taken, most = 0, 0, 0

    def block(start: int, stop: int) -> int:
        nonlocal made
        time.sleep(0.002 * (start % 3))  # later blocks overtake earlier ones
        with lock:
            made += 1
        return start + stop

    ranges = row_blocks(95, 4)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(95))
    for (start, stop), result in zip(
        ranges, map_blocks(block, ranges, threads=threads), strict=True
    ):
        assert result == start + stop
        taken += 1
        with lock:
            most = max(most, made - taken)
    assert taken == made == len(ranges) == 24
    assert most <= 2 * threads
