"""Our index alone, in process, with ids, cameras and times: no catalog, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import blocks
from bench.peers.site import Condition, Site
from service.domain.ports import IndexRows, RowFilter
from service.gallery.index import SEGMENT_ROWS, SegmentedIndex
from service.gallery.index_folder import IndexFolder, LogMark
from service.gallery.search_threads import SearchThreads

__all__ = ["Ours"]


class Ours:
    """``service.gallery.index.SegmentedIndex`` and its files."""

    filtering = "planner, exact"
    loads = True

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        faiss.omp_set_num_threads(1)
        self._site = site
        self._index = SegmentedIndex(site.dimension, threads=SearchThreads(threads))
        self._folder = IndexFolder(folder, model_version="bench", dimension=site.dimension)
        if reopen:
            for segment in self._folder.read(segment_rows=SEGMENT_ROWS).segments:
                self._index.adopt(segment)

    def load(self) -> Iterator[int]:
        cameras = self._site.cameras
        for start, stop, vectors in blocks(self._site):
            self._index.add(_rows(np.arange(start, stop), cameras[start:stop], vectors))
            yield stop

    def loaded(self) -> None:
        pass

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        chosen = RowFilter(
            include_cameras=None if condition.cameras is None else frozenset(condition.cameras),
            start=condition.start,
            end=condition.end,
        )
        return [hit.int for hit in self._index.search(query, top_k, chosen, None).ids]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self._index.remove([UUID(int=row)])
        self._index.add(_rows(np.array([row]), self._site.cameras[[row]], vector[np.newaxis]))

    def delete(self, row: int) -> None:
        self._index.remove([UUID(int=row)])

    def close(self) -> None:
        self._folder.write(self._index.snapshot, LogMark(1, "bench"))


def _rows(
    numbers: NDArray[np.int64], cameras: NDArray[np.int32], vectors: NDArray[np.float32]
) -> IndexRows:
    ids = np.zeros((len(numbers), 2), np.uint64)
    ids[:, 1] = numbers
    return IndexRows(ids, cameras, numbers.astype(np.int64), vectors)
