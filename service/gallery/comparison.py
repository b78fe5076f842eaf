"""Inner products of queries with the rows of segments, in float32, by faiss's kernels and BLAS.

faiss works on our own matrix: nothing is copied but the rows of a filtered batch. One query over
all rows is a scan that keeps only the best; a filtered one takes the products of the rows that
pass, or, when most do, of all, because in order they cost less than a third of what they cost at
random. Several queries share each block of rows while it lies in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from service.gallery.candidates import Candidates
from service.gallery.planner import SegmentPlan

__all__ = ["compare"]

# Candidates beyond those wanted, so that ties at the last place seldom need a second look.
SPARE = 16
# Rows multiplied at once in a batch: a few megabytes.
BLOCK = 4096
# Products of gathered rows that may wait to be offered together: a call costs as much as hundreds.
GATHERED = 65_536
# From this many queries on, BLAS beats a pass for each.
MATRIX_QUERIES = 8

Vectors = NDArray[np.float32]
Numbered = tuple[int, SegmentPlan]


def compare(
    plans: Sequence[Numbered], queries: Vectors, wanted: int, margin: float
) -> list[Candidates]:
    """For each query the rows of these segments that may be among its best ``wanted``.

    Args:
        plans: Segments, each with its number.
        queries: float32 (Q, D), C-contiguous, unit L2 norm.
        wanted: Places to fill.
        margin: Twice the error of a product.
    """
    found = [Candidates(wanted, margin) for _ in queries]
    if len(queries) == 1:
        _compare_one(plans, queries[0], wanted, found[0])
        return found
    for number, plan in plans:
        for rows, block in _blocks(plan):
            for values, candidates in zip(_block_products(block, queries), found, strict=True):
                candidates.offer(number, values, rows)
    return found


def _compare_one(plans: Sequence[Numbered], query: Vectors, wanted: int, found: Candidates) -> None:
    cut: list[tuple[int, SegmentPlan, float]] = []
    gathered: list[tuple[int, SegmentPlan, Vectors]] = []
    waiting = 0
    for number, plan in plans:
        vectors = plan.view.columns.vectors
        if plan.rows is not None:
            gathered.append((number, plan, _products_of(vectors, plan.rows, query)))
            waiting += plan.count
            if waiting > GATHERED:
                _offer_gathered(gathered, found)
                waiting = 0
        elif plan.mask is not None:
            every = _products(vectors, query)
            found.offer(number, every[plan.mask], np.flatnonzero(plan.mask))
        else:
            asked = min(plan.count, wanted + wanted // 8 + SPARE)
            values, rows = _scan(vectors, query, asked)
            found.offer(number, values, rows)
            if asked < plan.count:
                cut.append((number, plan, float(values[-1])))
    _offer_gathered(gathered, found)
    found.settle()
    for number, plan, last in cut:
        # So many near-ties that the spare places are full: look at every product.
        if last >= found.lowest:
            found.forget(number)
            found.offer(number, _products(plan.view.columns.vectors, query), 0)


def _offer_gathered(gathered: list[tuple[int, SegmentPlan, Vectors]], found: Candidates) -> None:
    """Offer the rows of several segments at once, and forget them."""
    if gathered:
        numbers = np.array([number for number, _, _ in gathered], np.int32)
        found.offer(
            np.repeat(numbers, [plan.count for _, plan, _ in gathered]),
            np.concatenate([products for _, _, products in gathered]),
            np.concatenate([plan.row_numbers() for _, plan, _ in gathered]),
        )
        gathered.clear()


def _blocks(plan: SegmentPlan) -> Iterator[tuple[NDArray[np.int64] | int, Vectors]]:
    """The rows of a plan, BLOCK at a time: their numbers (or the first) and vectors."""
    vectors = plan.view.columns.vectors
    if plan.rows is None and plan.mask is None:
        for start in range(0, plan.count, BLOCK):
            yield start, vectors[start : start + BLOCK]
        return
    rows = plan.row_numbers()
    for start in range(0, len(rows), BLOCK):
        chosen = rows[start : start + BLOCK]
        yield chosen, vectors[chosen]


def _block_products(block: Vectors, queries: Vectors) -> Iterator[Vectors]:
    if len(queries) < MATRIX_QUERIES:
        return (_products(block, query) for query in queries)
    return iter((block @ queries.T).T)


def _products(vectors: Vectors, query: Vectors) -> Vectors:
    """The product of every row, float32 (N,)."""
    products = np.empty(len(vectors), np.float32)
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
        faiss.swig_ptr(products),
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        len(vectors),
    )
    return products


def _products_of(vectors: Vectors, rows: NDArray[np.int64], query: Vectors) -> Vectors:
    """The products of some rows, float32 (len(rows),); the rows are not copied."""
    products = np.empty(len(rows), np.float32)
    faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]
        faiss.swig_ptr(products),
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors),
        faiss.swig_ptr(rows),
        vectors.shape[1],
        1,
        len(rows),
    )
    return products


def _scan(vectors: Vectors, query: Vectors, top_k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """The ``top_k`` largest products, descending, and their rows."""
    values = np.empty(top_k, np.float32)
    rows = np.empty(top_k, np.int64)
    faiss.knn_inner_product(
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        1,
        len(vectors),
        top_k,
        faiss.swig_ptr(values),
        faiss.swig_ptr(rows),
    )
    return values, rows
