"""A look at whether a scanner can be believed, before it answers anybody.

A sample is searched with and without bitmaps, and every answer is held against products in
float64: rows exist and differ, products are as good as half precision is, nothing better is
missing, and no row that the bitmap forbids is there. (faiss's classic GPU build takes selectors
and ignores them without an error; another build may be wrong on the next card.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition
from service.gpu.half import product_error, rounding
from service.gpu.scanner import Scanner, ScannerError

__all__ = ["selectors_honoured"]

logger = logging.getLogger(__name__)

# No multiple of 8, 32 or 128: the last bits of a bitmap are looked at, too.
ROWS = 5003
QUERIES = 17

Vectors = NDArray[np.float32]


def selectors_honoured(scanner: Scanner, dimension: int, *, seed: int = 0) -> bool:
    """Whether the scanner may be trusted with bitmaps.

    Raises:
        FailedPrecondition: it is wrong without one, too.
    """
    vectors, queries = _sample(dimension, seed)
    handle = None
    try:
        handle = scanner.upload(vectors)
        for k in (1, 10, min(1000, scanner.max_k)):
            for count in (1, QUERIES):
                wrong = _wrong(scanner, handle, vectors, queries[:count], k, None)
                if wrong:
                    raise _refused(wrong)
        for mask in _masks(vectors, queries, seed):
            for k in (1, 10, 100):
                wrong = _wrong(scanner, handle, vectors, queries, k, mask)
                if wrong:
                    logger.warning("the GPU does not honour bitmaps: %s", wrong)
                    return False
    except ScannerError as error:
        raise _refused(str(error)) from error
    finally:
        if handle is not None:
            scanner.release(handle)
    return True


def _refused(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the GPU failed its check: {what}; set index.backend to segmented, or see to the card, "
        "its driver and faiss-gpu-cuvs",
        field="index.backend",
        reason="GPU_SELF_CHECK_FAILED",
    )


def _sample(dimension: int, seed: int) -> tuple[Vectors, Vectors]:
    """Unit rows: some near each query, some twice, the rest anywhere; and the queries."""
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((QUERIES, dimension))
    rows = rng.standard_normal((ROWS, dimension))
    near = rng.permutation(ROWS)[: 40 * QUERIES].reshape(40, QUERIES)
    for step, chosen in enumerate(near, start=1):
        rows[chosen] = queries + 0.05 * step * rows[chosen]
    twins = near[:2].ravel()
    rows[(twins + 1) % ROWS] = rows[twins]
    return _unit(rows), _unit(queries)


def _masks(vectors: Vectors, queries: Vectors, seed: int) -> Iterator[NDArray[np.bool_]]:
    rng = np.random.default_rng(seed + 1)
    for share in (0.5, 0.01, 0.999):
        yield rng.random(ROWS) < share
    # All but the best: what a scanner that ignores bitmaps cannot miss.
    best = np.ones(ROWS, dtype=bool)
    best[np.argsort(-(vectors @ queries[0]))[:20]] = False
    yield best
    last = np.zeros(ROWS, dtype=bool)
    last[-3:] = True
    yield last


def _wrong(
    scanner: Scanner,
    handle: object,
    vectors: Vectors,
    queries: Vectors,
    k: int,
    mask: NDArray[np.bool_] | None,
) -> str:
    """What is wrong with an answer; empty when nothing is."""
    bitmap = None if mask is None else np.packbits(mask, bitorder="little")
    allowed = np.ones(len(vectors), dtype=bool) if mask is None else mask
    error = product_error(rounding(vectors), queries)
    k = min(k, int(np.count_nonzero(allowed)))
    found = scanner.search(handle, queries, k, bitmap)
    if found.rows.shape != (len(queries), k) or found.products.shape != found.rows.shape:
        return f"{found.rows.shape} rows where {len(queries)} x {k} were asked for"
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    for values, chosen, truth in zip(found.products, found.rows, exact, strict=True):
        if (chosen < 0).any() or (chosen >= len(vectors)).any():
            return f"there is no row {chosen[(chosen < 0) | (chosen >= len(vectors))][0]}"
        if len(np.unique(chosen)) != k:
            return "a row was returned twice"
        if not allowed[chosen].all():
            return f"row {chosen[~allowed[chosen]][0]} was returned against the bitmap"
        if not (np.abs(values - truth[chosen]) <= error).all():
            return (
                f"products are off by {np.abs(values - truth[chosen]).max():.2g}, not {error:.2g}"
            )
        if (np.diff(values) > 0).any():
            return "products do not descend"
        rest = allowed.copy()
        rest[chosen] = False
        if rest.any() and truth[rest].max() > float(values[-1]) + error:
            return f"row {np.flatnonzero(rest)[truth[rest].argmax()]} was missed"
    return ""


def _unit(values: NDArray[np.float64]) -> Vectors:
    made: Vectors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return made
