"""Vectors by id, over segments with removed rows."""

from __future__ import annotations

from uuid import UUID

import numpy as np

from service.domain.ports import IndexRows
from service.gallery.index import SegmentedIndex
from service.gallery.row_ids import id_halves


def test_vectors_come_for_the_rows_that_are_there() -> None:
    rng = np.random.default_rng(0)
    # Ids that share a lower half in pairs.
    ids = [UUID(int=(n // 2 + 1) << 64 | (n % 2 + n)) for n in range(40)]
    vectors = rng.standard_normal((40, 4)).astype(np.float32)
    index = SegmentedIndex(4, segment_rows=16)
    index.add(
        IndexRows(id_halves(ids), np.zeros(40, np.int64), np.arange(40, dtype=np.int64), vectors)
    )
    index.remove([ids[3], ids[20]])
    asked = [ids[n] for n in (39, 3, 0, 20, 17, 5)] + [UUID(int=99)]
    places, found = index.vectors_of(asked)
    assert places.tolist() == [0, 2, 4, 5]
    np.testing.assert_array_equal(found, vectors[[39, 0, 17, 5]])
    places, found = SegmentedIndex(4).vectors_of(asked)
    assert (len(places), found.shape) == (0, (0, 4))
