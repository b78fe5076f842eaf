"""Batches of decoded crops, gathered ahead of the training step by one background thread.

The thread only copies pixels (it waits for the disk when the cache is colder than memory) and
leaves the processor to the network; augmentation runs on the training device.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.data.cache import CropCache

__all__ = ["load"]

_WAIT_SECONDS = 0.1


def load(
    cache: CropCache,
    indices: Iterator[NDArray[np.int64]],
    *,
    device: torch.device,
    prefetch: int = 2,
    share: slice = slice(None),
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """Yields ((B, H, W, 3) uint8 on ``device``, (B,) indices) in the order of ``indices``.

    Of each batch only the images in ``share`` are gathered; all its indices are given.

    An error in the gathering thread is raised here. ``prefetch=0`` gathers in the caller's thread.
    """
    if not prefetch:
        for chosen in indices:
            yield _to_device(cache.gather(chosen[share]), device), chosen
        return
    ready: queue.Queue[tuple[Tensor, NDArray[np.int64]] | BaseException | None]
    ready = queue.Queue(maxsize=prefetch)
    stop = threading.Event()

    def put(item: tuple[Tensor, NDArray[np.int64]] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return

    def gather() -> None:
        try:
            for chosen in indices:
                put((_to_device(cache.gather(chosen[share]), device), chosen))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    worker = threading.Thread(target=gather, name="gather", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join()


def _to_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    batch = torch.from_numpy(images)
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch
