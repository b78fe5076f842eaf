"""Seeded synthetic inputs whose embeddings every reader recomputes before use.

The pixels come from SHAKE-256 and integer arithmetic alone, so that they are the same whatever
versions of numpy or Pillow are installed. Coarse colour blocks lie under fine noise: on noise
alone, encoders give nearly equal embeddings, and a swapped channel would go unseen.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resight.crops.preprocessing import Preprocessing
from resight.errors import BundleCorrupt
from resight.v1 import bundle_pb2

__all__ = ["check_golden", "golden_inputs", "make_golden"]

GOLDEN_COUNT = 4
# Runtimes and processors round differently; 0.9999 leaves room for that and for nothing else.
GOLDEN_MIN_COSINE = 0.9999
_LOWEST_MIN_COSINE = 0.99
_MAX_COUNT = 64
_ROWS, _COLUMNS = 8, 4


class Embedding(Protocol):
    """The encoder, on any runtime."""

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        ...

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 to (B, D) float32, L2-normalised."""
        ...


def golden_inputs(seed: int, count: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The inputs: (count, height, width, 3) uint8, a function of the arguments alone."""
    height, width = preprocessing.height, preprocessing.width
    rows = np.arange(height) * _ROWS // height
    columns = np.arange(width) * _COLUMNS // width
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        stream = hashlib.shake_256(f"resight golden {seed} {index}".encode())
        blocks = _ROWS * _COLUMNS * 3
        values = np.frombuffer(stream.digest(blocks + height * width * 3), np.uint8)
        coarse = values[:blocks].reshape(_ROWS, _COLUMNS, 3)[rows][:, columns]
        noise = values[blocks:].reshape(height, width, 3)
        images[index] = coarse // 4 * 3 + noise // 4
    return images


def make_golden(
    session: Embedding, preprocessing: Preprocessing, *, seed: int = 0
) -> bundle_pb2.Golden:
    """Runs the golden inputs and keeps what the encoder answers."""
    embeddings = session.embed(golden_inputs(seed, GOLDEN_COUNT, preprocessing))
    return bundle_pb2.Golden(
        seed=seed,
        count=GOLDEN_COUNT,
        embeddings=embeddings.astype("<f4").tobytes(),
        min_cosine=GOLDEN_MIN_COSINE,
    )


def check_golden(
    session: Embedding, golden: bundle_pb2.Golden, preprocessing: Preprocessing
) -> float:
    """Recomputes the golden embeddings.

    Returns:
        Lowest cosine similarity between expected and computed embeddings.

    Raises:
        BundleCorrupt: One of them lies below the manifest's bound.
    """
    expected = _expected(golden, session.dimension)
    images = golden_inputs(golden.seed, golden.count, preprocessing)
    computed = session.embed(images)
    cosine = float(np.min(np.sum(expected * computed, axis=1)))
    if not cosine >= golden.min_cosine:  # also refuses NaN
        raise BundleCorrupt(
            f"encoder.onnx: golden outputs differ, cosine {cosine:.6f} < {golden.min_cosine};"
            " the graph or the runtime is damaged: fetch the bundle again or write it again",
            field="encoder.onnx",
        )
    return cosine


def _expected(golden: bundle_pb2.Golden, dimension: int) -> NDArray[np.float32]:
    if not 1 <= golden.count <= _MAX_COUNT:
        raise _bad(f"golden.count is {golden.count}, not 1 to {_MAX_COUNT}")
    if not _LOWEST_MIN_COSINE <= golden.min_cosine <= 1:
        raise _bad(f"golden.min_cosine is {golden.min_cosine}, not {_LOWEST_MIN_COSINE} to 1")
    if len(golden.embeddings) != 4 * golden.count * dimension:
        raise _bad(f"golden.embeddings has {len(golden.embeddings)} bytes")
    values = np.frombuffer(golden.embeddings, "<f4").astype(np.float32)
    return values.reshape(golden.count, dimension)


def _bad(what: str) -> BundleCorrupt:
    return BundleCorrupt(f"manifest.json: {what}; write the bundle again", field="manifest.json")
