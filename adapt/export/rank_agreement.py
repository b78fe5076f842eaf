"""Rank agreement of a graph made from the encoder, on a sample of the run's crops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from resight.bundle.rank_agreement import Embedded, RankFigures, rank_agreement

__all__ = ["Embed", "compare_ranking", "embed_in_batches"]

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_BATCH = 32


def embed_in_batches(embed: Embed, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embeddings (N, D) of crops (N, H, W, 3), a few at a time."""
    parts = [embed(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
    return np.concatenate(parts)


def compare_ranking(
    reference: NDArray[np.float32],
    other: NDArray[np.float32],
    groups: NDArray[np.int64] | None = None,
) -> RankFigures:
    """Ranks a sample's crops for each of them, as two encoders see them.

    Args:
        reference: (N, D) embeddings by the encoder.
        other: (N, D') embeddings by the other.
        groups: (N,) codes; crops of one group, a track say, are not ranked for each other. By
            default a crop is left out for itself alone.

    Raises:
        InvalidArgument: Too few crops, or a vector that is not finite.
    """
    codes = np.arange(len(reference)) if groups is None else groups
    return rank_agreement(
        Embedded(reference, reference),
        Embedded(other, other),
        query_groups=codes,
        gallery_groups=codes,
    )
