"""A batcher whose encoder's thread is stepped by hand, with the clock set."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from service.pipeline.batcher import Batcher, BatchPolicy
from service.pipeline.latency import LatencyModel

POISON = 255


def image(number: int) -> np.ndarray:
    return np.full((1, 2, 3), number, np.uint8)


class Recorder:
    """An encoder that returns each image's number, and fails on POISON."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.dead = False

    def __call__(self, images: np.ndarray) -> np.ndarray:
        numbers = [int(one[0, 0, 0]) for one in images]
        self.batches.append(numbers)
        if self.dead or POISON in numbers:
            raise RuntimeError("cannot")
        return images[:, 0, 0, :1].astype(np.float32)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def make(executor: Any, clock: Any, **policy: Any) -> tuple[Batcher, Recorder]:
    recorder = Recorder()
    batcher = Batcher(
        recorder,
        executor=executor,
        policy=BatchPolicy(**policy),
        latency=LatencyModel(),
        clock=clock,
    )
    return batcher, recorder
