"""Exact search over one gallery.

The answer is defined without reference to how it is found: the score of a row is the inner
product of the two float32 vectors in float64, rounded once to float32, and rows are ranked by
score, then by id. A float32 scan finds the candidates. Its inner product of two unit vectors of D
values is off by at most gamma_D = D u / (1 - D u), u = 2^-24 (Higham, Accuracy and Stability of
Numerical Algorithms, eq. 3.5), in whatever order it adds; so every row within 2 gamma_D of the
k-th best candidate is kept, scored as defined, and ranked. Filtered or not, gathered or scanned:
the same rows, the same scores, the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import faiss
import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexHits, IndexRows, RowFilter
from service.gallery.columns import Columns, Snapshot, id_halves
from service.gallery.planner import Plan, plan
from service.telemetry import stage

__all__ = ["FlatIndex"]

# Candidates beyond those wanted, so that ties at the last place seldom need a second look.
SPARE = 16
# Rows scored at once: bounds the float64 copy to a few megabytes.
BLOCK = 2048


class FlatIndex:
    """Vectors of one gallery and one model, compared one by one.

    ``add``, ``remove`` and ``reserve`` belong to one thread; ``search`` may run on any, at the
    same time, without a lock.

    Args:
        dimension: Values a vector.
        gather_rows: Filters that leave at most this many rows gather them.
    """

    def __init__(self, dimension: int, *, gather_rows: int = 1024) -> None:
        self._columns = Columns(dimension)
        self._gather_rows = gather_rows
        self._dimension = dimension
        unit = dimension * 2.0**-24
        # Rounding the defined score to float32 may move it by 2^-25 more; 2^-22 is ample.
        self._margin = 2.0 * unit / (1.0 - unit) + 2.0**-22

    def __len__(self) -> int:
        """Rows a search can return."""
        return self._columns.snapshot.living

    @property
    def tombstones(self) -> int:
        """Removed rows that still take memory."""
        return len(self._columns.snapshot.dead)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self._columns.nbytes

    def reserve(self, rows: int) -> None:
        """Make room for this many rows."""
        self._columns.reserve(rows)

    def add(self, rows: IndexRows) -> None:
        """Append rows whose ids are not in the index; the catalog sees to that."""
        self._columns.append(rows)

    def remove(self, ids: Sequence[UUID]) -> int:
        """Remove rows by id; returns how many were there."""
        return self._columns.remove(ids)

    def search(
        self,
        vector: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> IndexHits:
        """The best rows that pass the filter and reach ``min_score``.

        Args:
            vector: float32 (D,), unit L2 norm.
            top_k: Rows wanted; fewer are returned when fewer pass.
            row_filter: Which rows may match.
            min_score: Lowest score, or None.

        Raises:
            ValueError: the vector has another dimension.
        """
        if vector.shape != (self._dimension,):
            raise ValueError(f"query has shape {vector.shape}, the index ({self._dimension},)")
        query = np.ascontiguousarray(vector, dtype=np.float32)
        snapshot = self._columns.snapshot
        with stage("filter"):
            chosen = plan(snapshot, row_filter, gather_rows=self._gather_rows)
        with stage("search"):
            return self._compare(snapshot, chosen, query, top_k, row_filter.exclude_ids, min_score)

    def _compare(
        self,
        snapshot: Snapshot,
        chosen: Plan,
        query: NDArray[np.float32],
        top_k: int,
        exclude_ids: frozenset[UUID],
        min_score: float | None,
    ) -> IndexHits:
        wanted = min(top_k + len(exclude_ids), chosen.count)
        rows = np.empty(0, np.int64)
        if wanted:
            rows = self._candidates(snapshot, chosen, query, wanted)
        scores = _scores(snapshot.vectors, rows, query)
        kept = np.ones(len(rows), dtype=bool)
        for high, low in id_halves(list(exclude_ids)).tolist():
            kept &= (snapshot.ids[rows, 1] != low) | (snapshot.ids[rows, 0] != high)
        if min_score is not None:
            kept &= scores >= np.float32(min_score)
        rows, scores = rows[kept], scores[kept]
        ids = snapshot.ids[rows]
        order = np.lexsort((ids[:, 1], ids[:, 0], -scores))[:top_k]
        return IndexHits(
            ids=[UUID(int=high << 64 | low) for high, low in ids[order].tolist()],
            scores=scores[order],
            mode=chosen.mode,
            rows_scanned=chosen.count,
            rows_total=snapshot.living,
        )

    def _candidates(
        self, snapshot: Snapshot, chosen: Plan, query: NDArray[np.float32], wanted: int
    ) -> NDArray[np.int64]:
        """Rows that certainly include the best ``wanted``."""
        if chosen.rows is not None:
            return _near_best(
                snapshot.vectors[chosen.rows] @ query, chosen.rows, wanted, self._margin
            )
        asked = min(chosen.count, wanted + wanted // 8 + SPARE)
        values, rows = _scan(snapshot.vectors, query, asked, chosen.mask)
        lowest = values[wanted - 1] - self._margin
        if asked == chosen.count or values[-1] < lowest:
            return rows[np.flatnonzero(values >= lowest)]
        # So many near-ties that the spare places are full: look at every score.
        every = snapshot.vectors @ query
        rows = np.arange(snapshot.rows) if chosen.mask is None else np.flatnonzero(chosen.mask)
        return _near_best(every[rows], rows, wanted, self._margin)


def _near_best(
    values: NDArray[np.float32], rows: NDArray[np.int64], wanted: int, margin: float
) -> NDArray[np.int64]:
    """The rows whose value is within ``margin`` of the ``wanted``-th largest, or above."""
    place = len(values) - wanted
    lowest = np.partition(values, place)[place] - margin
    return rows[np.flatnonzero(values >= lowest)]


def _scan(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    top_k: int,
    mask: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``top_k`` largest inner products, by faiss over our own matrix: nothing is copied."""
    values = np.empty(top_k, np.float32)
    rows = np.empty(top_k, np.int64)
    bitmap = None if mask is None else np.packbits(mask, bitorder="little")
    selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg, arg-type]
    faiss.knn_inner_product(
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors),
        vectors.shape[1],
        1,
        len(vectors),
        top_k,
        faiss.swig_ptr(values),
        faiss.swig_ptr(rows),
        selector,
    )
    return values, rows


def _scores(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The defined score of each row; a row's score does not depend on its neighbours."""
    scores = np.empty(len(rows), np.float32)
    wide = query.astype(np.float64)
    for start in range(0, len(rows), BLOCK):
        block = vectors[rows[start : start + BLOCK]].astype(np.float64)
        scores[start : start + BLOCK] = (block * wide).sum(axis=1)
    return scores
