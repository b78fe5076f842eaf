"""faiss' flat index with numpy columns beside it: what one writes in an afternoon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import blocks
from bench.peers.site import Condition, Site

__all__ = ["FaissFlat"]


class FaissFlat:
    """``IndexIDMap2(IndexFlatIP)``; a filter becomes a bitmap over ids."""

    filtering = "bitmap made of numpy columns"
    loads = True

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        # One query is compared on one thread whatever is set; more only spin.
        del threads
        faiss.omp_set_num_threads(1)
        self._site, self._file = site, str(folder / "flat.faiss")
        self._cameras = site.cameras
        self._index = (
            faiss.read_index(self._file)
            if reopen
            else faiss.IndexIDMap2(faiss.IndexFlatIP(site.dimension))
        )

    def load(self) -> Iterator[int]:
        for start, stop, vectors in blocks(self._site):
            self._index.add_with_ids(vectors, np.arange(start, stop))
            yield stop

    def loaded(self) -> None:
        pass

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        parameters = None
        if condition != Condition():
            passes = np.ones(len(self._cameras), dtype=bool)
            if condition.cameras is not None:
                passes = np.isin(self._cameras, condition.cameras)
            passes[: condition.start or 0] = False
            if condition.end is not None:
                passes[condition.end :] = False
            bits = np.packbits(passes, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(passes), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)
        _, rows = self._index.search(query[np.newaxis], top_k, params=parameters)
        return [row for row in rows[0].tolist() if row >= 0]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self.delete(row)
        self._index.add_with_ids(vector[np.newaxis], np.array([row]))

    def delete(self, row: int) -> None:
        self._index.remove_ids(np.array([row]))

    def close(self) -> None:
        faiss.write_index(self._index, self._file)
