"""Readers together, a writer alone and first."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.milvus.shared_lock import SharedLock


def test_a_writer_is_alone() -> None:
    lock, counting = SharedLock(), threading.Lock()
    inside, failures = Counter[str](), list[Counter[str]]()

    def count(kind: str, step: int) -> None:
        with counting:
            inside[kind] += step
            if inside["write"] > 1 or (inside["write"] and inside["read"]):
                failures.append(inside.copy())

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            kind = "write" if rng.random() < 0.2 else "read"
            with lock.alone() if kind == "write" else lock.shared():
                count(kind, 1)
                time.sleep(0.0005)
                count(kind, -1)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert not failures


def test_two_readers_are_inside_at_once() -> None:
    lock, both = SharedLock(), threading.Barrier(2, timeout=60)

    def read() -> None:
        with lock.shared():
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(read), pool.submit(read)]:
            done.result()


def test_a_waiting_writer_goes_before_later_readers() -> None:
    lock, order = SharedLock(), list[str]()

    def write() -> None:
        with lock.alone():
            order.append("writer")

    def read() -> None:
        with lock.shared():
            order.append("reader")

    with ThreadPoolExecutor(2) as pool:
        with lock.shared():
            writer = pool.submit(write)
            while not lock._writers:
                time.sleep(0.001)
            reader = pool.submit(read)
            time.sleep(0.05)
            assert order == []
        writer.result(60)
        reader.result(60)
    assert order == ["writer", "reader"]
