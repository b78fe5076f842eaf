"""The loader hands over what the cache holds, and its errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapt.data.cache import CropCache, build_cache
from adapt.data.loader import load
from resight.crops import Preprocessing, open_source

CPU = torch.device("cpu")


@pytest.fixture
def cache(make_crops: Callable[..., Path], tmp_path: Path) -> CropCache:
    crops = open_source(make_crops()).scan(check="header").crops
    return build_cache(crops, Preprocessing(16, 8), tmp_path / "cache")


def endless() -> Iterator[NDArray[np.int64]]:
    start = 0
    while True:
        yield np.arange(start, start + 4) % 48
        start += 4


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_batches_come_in_order(cache: CropCache, prefetch: int) -> None:
    wanted = list(islice(endless(), 10))
    found = list(load(cache, iter(wanted), device=CPU, prefetch=prefetch))
    assert len(found) == 10
    for (images, indices), expected in zip(found, wanted, strict=True):
        assert np.array_equal(indices, expected)
        assert np.array_equal(images.numpy(), cache.gather(expected))


def test_leaving_early_ends_the_thread(cache: CropCache) -> None:
    loaded = load(cache, endless(), device=CPU, prefetch=2)
    next(loaded)
    loaded.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "gather"]


def test_an_error_while_gathering_is_raised_here(cache: CropCache) -> None:
    wanted = iter([np.array([0]), np.array([999])])
    loaded = load(cache, wanted, device=CPU, prefetch=2)
    next(loaded)
    with pytest.raises(IndexError):
        next(loaded)
