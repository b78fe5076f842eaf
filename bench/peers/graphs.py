"""hnswlib and usearch: graphs at settings of high recall, and their exact searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import blocks
from bench.peers.site import Condition, Site

__all__ = ["Hnswlib", "HnswlibExact", "Usearch", "UsearchExact"]

LINKS, EXPANSION = 32, 200
# usearch has no filter in Python: so many times the rows wanted are fetched, then filtered.
OVERFETCH = 10


class Hnswlib:
    """``hnswlib.Index``, M 32, ef_construction 200, ef 200."""

    filtering = "Python callback per candidate"
    loads = True

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        import hnswlib

        self._site, self._file, self._threads = site, str(folder / "index.bin"), threads
        self._cameras = site.cameras
        self._index = hnswlib.Index(space="ip", dim=site.dimension)
        if reopen:
            self._index.load_index(self._file)
        else:
            self._index.init_index(site.rows, ef_construction=EXPANSION, M=LINKS)
        self._index.set_ef(EXPANSION)

    def load(self) -> Iterator[int]:
        for start, stop, vectors in blocks(self._site):
            self._index.add_items(vectors, np.arange(start, stop), num_threads=self._threads)
            yield stop

    def loaded(self) -> None:
        pass

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        passes = None if condition == Condition() else _Passes(self._cameras, condition)
        labels, _ = self._index.knn_query(query, k=top_k, num_threads=1, filter=passes)
        found: list[int] = labels[0].tolist()
        return found

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self._index.add_items(vector[np.newaxis], [row])

    def delete(self, row: int) -> None:
        self._index.mark_deleted(row)

    def close(self) -> None:
        self._index.save_index(self._file)


class HnswlibExact(Hnswlib):
    """``hnswlib.BFIndex``."""

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        import hnswlib

        self._site, self._file, self._threads = site, str(folder / "flat.bin"), threads
        self._cameras = site.cameras
        self._index = hnswlib.BFIndex(space="ip", dim=site.dimension)
        if reopen:
            self._index.load_index(self._file, site.rows)
        else:
            self._index.init_index(site.rows)

    def load(self) -> Iterator[int]:
        for start, stop, vectors in blocks(self._site):
            self._index.add_items(vectors, np.arange(start, stop))
            yield stop

    def delete(self, row: int) -> None:
        self._index.delete_vector(row)


class Usearch:
    """``usearch.Index``, connectivity 32, expansions 200, float32."""

    filtering = f"none: the best {OVERFETCH} k are filtered afterwards"
    loads = True
    exact = False

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        from usearch.index import Index

        self._site, self._file, self._threads = site, folder / "index.usearch", threads
        self._cameras = site.cameras
        self._index = Index(
            ndim=site.dimension,
            metric="ip",
            dtype="f32",
            connectivity=LINKS,
            expansion_add=EXPANSION,
            expansion_search=EXPANSION,
        )
        if reopen:
            self._index.load(self._file)

    def load(self) -> Iterator[int]:
        for start, stop, vectors in blocks(self._site):
            self._index.add(np.arange(start, stop), vectors, threads=self._threads)
            yield stop

    def loaded(self) -> None:
        pass

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        plain = condition == Condition()
        wanted = top_k if plain else OVERFETCH * top_k
        found = self._index.search(query, wanted, threads=self._threads, exact=self.exact)
        rows: list[int] = found.keys.tolist()
        if plain:
            return rows
        passes = _Passes(self._cameras, condition)
        return [row for row in rows if passes(row)][:top_k]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self._index.remove(row)
        self._index.add(row, vector)

    def delete(self, row: int) -> None:
        self._index.remove(row)

    def close(self) -> None:
        self._index.save(self._file)


class UsearchExact(Usearch):
    """The same with ``exact=True``."""

    exact = True


class _Passes:
    """Whether a row passes, asked one by one."""

    def __init__(self, cameras: NDArray[np.int32], condition: Condition) -> None:
        self._cameras = cameras
        self._allowed = None if condition.cameras is None else set(condition.cameras)
        self._start = condition.start or 0
        self._end = len(cameras) if condition.end is None else condition.end

    def __call__(self, row: int) -> bool:
        return self._start <= row < self._end and (
            self._allowed is None or int(self._cameras[row]) in self._allowed
        )
