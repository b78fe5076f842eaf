"""Shares of a batch and portions of a list; a process by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.training.distributed import current
from adapt.training.ranks import Ranks
from resight.errors import InvalidArgument


def test_alone_there_is_nothing_to_do() -> None:
    ranks = current()
    tensor = torch.arange(4.0, requires_grad=True)
    assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert ranks.gather(tensor) is tensor
    assert ranks.once(lambda: 3) == 3
    assert ranks.every(3) == [3]
    assert ranks.share(10) == slice(0, 10)
    assert ranks.portion(7) == slice(0, 7)
    assert ranks.group_size(0, 16) == 0
    assert ranks.group_size(4, 16) == 4
    ranks.average([tensor])
    ranks.sum_gradients([tensor], [])
    ranks.wait()
    with ranks.leading():
        ranks.require_same("anything")


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_and_portions_cover_everything_once(size: int) -> None:
    every = np.arange(60)
    ranks = [_numbered(rank, size) for rank in range(size)]
    assert np.array_equal(np.concatenate([every[r.share(60)] for r in ranks]), every)
    for count in (0, 1, size - 1, size, 23):
        items = np.arange(count)
        assert np.array_equal(np.concatenate([items[r.portion(count)] for r in ranks]), items)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    for size, count in ((3, 16), (16, 16)):
        with pytest.raises(InvalidArgument, match="cannot be shared"):
            _numbered(1, size).share(count)


@pytest.mark.parametrize(("group", "expected"), [(0, 16), (8, 8), (16, 16), (32, 16), (5, 16)])
def test_a_group_lies_within_one_rank(group: int, expected: int) -> None:
    assert _numbered(0, 2).group_size(group, 32) == expected


def _numbered(rank: int, size: int) -> Ranks:
    ranks = Ranks()
    ranks.rank, ranks.size = rank, size
    return ranks
