"""Cells of a feature space: where near rows are looked for first.

Spherical k-means (Dhillon and Modha, Machine Learning 42, 2001) on a random sample: assign each
row to the unit centre with the largest product, make each centre the normalised mean of its rows,
repeat. A centre that is left without rows takes a random row of the sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, one_product_a_thread, row_blocks

__all__ = ["cell_centres", "default_cells", "nearest_cells"]

_SAMPLE = 32
_ROUNDS = 6
_BLOCK = 1024
_TINY = 1e-12


def default_cells(rows: int) -> int:
    """Four times the square root of ``rows``: about as many centres to look at as members."""
    return max(1, min(rows, round(4.0 * math.sqrt(rows))))


def cell_centres(
    features: NDArray[np.float32], rows: NDArray[np.int32], cells: int, *, seed: int, threads: int
) -> NDArray[np.float32]:
    """Centres (cells, D), unit rows, of some ``rows`` of ``features`` (N, D), unit rows.

    Args:
        features: may be memory-mapped; a sample is copied.
        rows: int32 (R,).
        cells: at most R.
        seed: of sample and start.
        threads: to run on.
    """
    random = np.random.default_rng(seed)
    sample = features[np.sort(rows[random.permutation(rows.size)[: _SAMPLE * cells]])]
    everything = np.arange(sample.shape[0], dtype=np.int32)
    centres = sample[np.sort(random.permutation(sample.shape[0])[:cells])]
    for _ in range(_ROUNDS):
        home = nearest_cells(sample, everything, centres, 1, threads=threads)[:, 0]
        centres = _means(sample, home, cells, random)
    return centres


def nearest_cells(
    features: NDArray[np.float32],
    rows: NDArray[np.int32],
    centres: NDArray[np.float32],
    near: int,
    *,
    threads: int,
) -> NDArray[np.int32]:
    """The ``near`` nearest cells of each of ``rows`` (R,), int32 (R, near), nearest first."""
    found = np.empty((rows.size, near), dtype=np.int32)

    def search(start: int, stop: int) -> None:
        products = features[rows[start:stop]] @ centres.T
        if near == 1:
            found[start:stop, 0] = np.argmax(products, axis=1)
            return
        chosen = np.argpartition(products, -near, axis=1)[:, -near:]
        order = np.argsort(-np.take_along_axis(products, chosen, axis=1), axis=1, kind="stable")
        found[start:stop] = np.take_along_axis(chosen, order, axis=1)

    with one_product_a_thread():
        for _ in map_blocks(search, row_blocks(rows.size, _BLOCK), threads=threads):
            pass
    return found


def _means(
    sample: NDArray[np.float32],
    home: NDArray[np.int32],
    cells: int,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    order = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[order], np.arange(cells + 1))
    centres = np.empty((cells, sample.shape[1]), dtype=np.float32)
    for cell in range(cells):
        members = order[starts[cell] : starts[cell + 1]]
        mean = sample[members].sum(axis=0)
        length = float(np.linalg.norm(mean))
        if length > _TINY:
            centres[cell] = mean / length
        else:
            centres[cell] = sample[random.integers(sample.shape[0])]
    return centres
