"""Comparing two encoders on one sample: who is left out, and what batches change."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.export.rank_agreement import compare_ranking, embed_in_batches


def tracks(count: int = 20, each: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(count, 16)), each, axis=0)
    vectors = people + 0.05 * rng.normal(size=people.shape)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32), np.repeat(np.arange(count), each)


def test_batches_change_nothing() -> None:
    crops = np.random.default_rng(1).integers(0, 256, (71, 4, 2, 3), dtype=np.uint8)
    seen: list[int] = []

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(images))
        return images.reshape(len(images), -1).astype(np.float32)

    assert np.array_equal(embed_in_batches(embed, crops), crops.reshape(71, -1))
    assert sum(seen) == 71
    assert max(seen) <= 32


def test_crops_of_a_track_are_not_ranked_for_each_other() -> None:
    """Near copies take the first places of any encoder, and would hide that the rest is wrong."""
    vectors, groups = tracks()
    rng = np.random.default_rng(2)
    strangers = np.repeat(rng.normal(size=(20, 16)), 4, axis=0) + 0.05 * rng.normal(size=(80, 16))
    other = (strangers / np.linalg.norm(strangers, axis=1, keepdims=True)).astype(np.float32)
    assert compare_ranking(vectors, other).overlap > 0.3
    assert compare_ranking(vectors, other, groups).overlap < 0.25
    same = compare_ranking(vectors, vectors, groups)
    assert (same.overlap, same.first, same.correlation) == pytest.approx((1, 1, 1))
