"""Stored vectors looked at: the right size, finite, of unit length."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from service.catalog.check_reads import CheckedCrop

__all__ = ["damaged_vectors"]

# Normalised in float32, a vector of a few thousand values is off by less than 1e-5.
TOLERANCE = 1e-4


def damaged_vectors(block: Sequence[CheckedCrop], dimension: int) -> list[UUID]:
    """Crops whose vector cannot have been stored like this."""
    sized = [
        crop for crop in block if crop.vector is not None and len(crop.vector) == 4 * dimension
    ]
    wrong = [
        crop.crop_id
        for crop in block
        if crop.vector is not None and len(crop.vector) != 4 * dimension
    ]
    data = np.frombuffer(b"".join(crop.vector or b"" for crop in sized), dtype="<f4")
    with np.errstate(all="ignore"):
        values = data.reshape(-1, dimension).astype(np.float64)
        off = np.abs(np.einsum("nd,nd->n", values, values) - 1.0)
        bad = np.flatnonzero(~(off <= 2 * TOLERANCE))
    return wrong + [sized[place].crop_id for place in bad.tolist()]
