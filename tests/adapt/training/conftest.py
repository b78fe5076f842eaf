"""Engines over small crops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.adapt.training.small_engine import Bench, MakeCrops


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only wait for one another's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bench(make_crops: MakeCrops, tmp_path: Path) -> Bench:
    return Bench(make_crops(), tmp_path)
