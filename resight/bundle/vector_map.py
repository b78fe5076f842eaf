"""The old-to-new vector map of a bundle: a matrix, an offset and a unit length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.bundle.bundle import Bundle
from resight.errors import BundleCorrupt, InvalidArgument, NotFound

__all__ = ["VectorMap", "load_vector_map"]

_MAX_DIMENSION = 65_536


@dataclass(frozen=True)
class VectorMap:
    """map(x) = z / ||z||, z = x matrix + offset.

    Attributes:
        matrix: float32 (D_old, D_new).
        offset: float32 (D_new,).
    """

    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]

    def apply(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Old embeddings (N, D_old) as new ones (N, D_new), unit length.

        Raises:
            InvalidArgument: Another dimension than the map's, or a vector that is not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.matrix):
            raise InvalidArgument(
                f"vectors: shape {vectors.shape}, and the map takes (N, {len(self.matrix)})",
                field="vectors",
            )
        mapped = vectors.astype(np.float32) @ self.matrix + self.offset
        norms = np.linalg.norm(mapped, axis=1, keepdims=True)
        if not (norms > 0).all():  # also refuses NaN
            raise InvalidArgument("vectors: one is not finite or maps to nothing", field="vectors")
        return np.asarray(mapped / norms, np.float32)

    def to_bytes(self) -> bytes:
        """The file of a bundle: little-endian float32, the matrix row by row, then the offset."""
        return self.matrix.astype("<f4").tobytes() + self.offset.astype("<f4").tobytes()


def load_vector_map(bundle: Bundle, from_version: str) -> VectorMap:
    """The map from a model version's embeddings to this bundle's.

    Raises:
        NotFound: The bundle has none from that version; says which it has.
        BundleCorrupt: The file does not have the size that the manifest says.
    """
    entries = {entry.from_version: entry for entry in bundle.manifest.vector_maps}
    if from_version not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise NotFound(
            f"bundle {bundle.model_version} maps no vectors of {from_version} (it maps those of:"
            f" {known}): embed the gallery anew from its crops",
            field="from_version",
        )
    entry = entries[from_version]
    rows, columns = entry.from_dimension, bundle.dimension
    data = bundle.file(entry.path).read_bytes()
    if not 1 <= rows <= _MAX_DIMENSION or len(data) != 4 * (rows + 1) * columns:
        raise BundleCorrupt(
            f"bundle file {entry.path}: {len(data)} bytes are no map from {rows} to {columns}"
            " dimensions; fit it again",
            field=entry.path,
        )
    values = np.frombuffer(data, "<f4").astype(np.float32).reshape(rows + 1, columns)
    if not np.isfinite(values).all():
        raise BundleCorrupt(f"bundle file {entry.path}: a value is not finite", field=entry.path)
    return VectorMap(values[:rows], values[rows])
