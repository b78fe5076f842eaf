"""Features of people who do not exist, for timing: their geometry is what matters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["lifted", "people"]

_CROPS_A_PERSON = 17


def people(rows: int, dimension: int, noise: float, decay: float) -> NDArray[np.float32]:
    """Unit rows of people of 17 crops on average, as in Market-1501, overlapping at their borders.

    Centres are Gaussian, crops lie around them with ``noise`` times their spread; dimension i has a
    variance proportional to (i + 1)^-decay. Seed 0.
    """
    rng = np.random.default_rng(0)
    spread = (np.arange(dimension, dtype=np.float32) + 1) ** np.float32(-decay / 2)
    count = max(1, rows // _CROPS_A_PERSON)
    centres = rng.standard_normal((count, dimension), dtype=np.float32)
    features = centres[rng.integers(0, count, rows)]
    for start in range(0, rows, 4096):
        part = features[start : start + 4096]
        part += noise * rng.standard_normal(part.shape, dtype=np.float32)
        part *= spread
    return _unit(features)


def lifted(features: NDArray[np.floating], dimension: int) -> NDArray[np.float32]:
    """The same geometry in more dimensions: multiplied by a matrix with orthonormal rows."""
    if features.shape[1] < dimension:
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.standard_normal((dimension, features.shape[1])))[0].T
        features = features.astype(np.float32) @ basis.astype(np.float32)
    return _unit(features.astype(np.float32))


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    for start in range(0, len(features), 4096):
        part = features[start : start + 4096]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return features
