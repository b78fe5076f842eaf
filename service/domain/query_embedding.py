"""Vectors made by callers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["QueryEmbedding", "unit_vector"]


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """A vector made by the caller: float32 values and the version of the encoder it names."""

    values: Sequence[float] | NDArray[np.float32]
    model_version: str


def unit_vector(
    embedding: QueryEmbedding, *, dimension: int, model_version: str
) -> NDArray[np.float32]:
    """The caller's vector as float32 (dimension,) of unit L2 norm.

    A finite vector of any other length is normalised: cosine similarity knows no length.

    Raises:
        FailedPrecondition: it names another model version, or none.
        InvalidArgument: wrong number of values, a value that is not finite, or all zeros.
    """
    if embedding.model_version != model_version:
        raise FailedPrecondition(
            f"embedding.model_version is {embedding.model_version[:80]!r} but the gallery's live "
            f"encoder is {model_version!r}; vectors of two versions are never comparable: embed "
            "the image again with EmbedService.Embed",
            field="embedding.model_version",
            reason="MODEL_VERSION_MISMATCH",
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        values = np.asarray(embedding.values, dtype=np.float32)
    if values.shape != (dimension,):
        raise InvalidArgument(
            f"embedding.values has {values.size} values; the live encoder has {dimension}",
            field="embedding.values",
        )
    wide = values.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not math.isfinite(norm) or norm == 0.0:
        raise InvalidArgument(
            "embedding.values contains NaN, infinity or nothing but zeros; send a unit vector",
            field="embedding.values",
        )
    return (wide / norm).astype(np.float32)
