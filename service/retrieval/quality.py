"""How far an example of several is to be believed, without labels.

quality_i = agreement_i * sharpness_i
agreement_i = max(0, mean of <p_i, p_j> over j != i)
sharpness_i = sigma_i / max_j sigma_j, sigma the standard deviation of the image's Laplacian
    (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000, use its square)

An image of somebody else, or one where the person is hidden, agrees less with the others; a blurred
one has a flat Laplacian. Sharpness counts where every example is an image; of stored crops and
vectors only agreement is known. Where every quality is zero all are believed alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["qualities", "sharpness"]


def sharpness(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the Laplacian of an RGB image (H, W, 3), H and W at least 3."""
    gray = image.astype(np.float64).mean(axis=2)
    centre = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * centre).std())


def qualities(
    vectors: NDArray[np.float32], sharpnesses: Sequence[float] | None
) -> NDArray[np.float64]:
    """The quality of each of (P, D) unit vectors; ``sharpnesses`` are None where unknown."""
    count = len(vectors)
    wide = vectors.astype(np.float64)
    found = np.ones(count)
    if count > 1:
        # The mean over the others: of the whole sum less the vector itself.
        total = wide.sum(axis=0)
        found = np.maximum(((wide @ total) - (wide * wide).sum(axis=1)) / (count - 1), 0.0)
    if sharpnesses is not None and max(sharpnesses) > 0:
        found = found * (np.asarray(sharpnesses) / max(sharpnesses))
    return found if found.any() else np.ones(count)
