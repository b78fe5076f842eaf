"""Scanners in memory: an honest one, and those that a bad build or a bad card would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from service.gpu.scanner import Nearest, ScannerError


class NumpyScanner:
    """Half precision by numpy: operands in binary16, sums in float32."""

    max_k = 500

    def __init__(self, *, room: int = 1 << 40) -> None:
        self.room = room
        self.held: dict[int, np.ndarray] = {}
        self.searches = 0
        self._next = 0

    def upload(self, vectors: np.ndarray) -> int:
        if sum(map(len, self.held.values())) + len(vectors) > self.room:
            raise ScannerError("out of memory")
        self._next += 1
        self.held[self._next] = vectors.astype(np.float16)
        return self._next

    def search(
        self, handle: Any, queries: np.ndarray, k: int, bitmap: np.ndarray | None
    ) -> Nearest:
        self.searches += 1
        rows = self.held[handle]
        assert 1 <= k <= min(self.max_k, len(rows))
        products = queries.astype(np.float16).astype(np.float32) @ rows.astype(np.float32).T
        if bitmap is not None:
            assert len(bitmap) == (len(rows) + 7) // 8
            allowed = np.unpackbits(bitmap, count=len(rows), bitorder="little").astype(bool)
            assert k <= np.count_nonzero(allowed)
            products[:, ~allowed] = -np.inf
        best = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return Nearest(np.take_along_axis(products, best, axis=1), best)

    def release(self, handle: Any) -> None:
        del self.held[handle]


Spoil = Callable[[Nearest, int], Nearest]


class Sabotaged(NumpyScanner):
    """An honest scanner whose answers are spoilt from the n-th search on."""

    def __init__(self, spoil: Spoil, *, after: int = 0) -> None:
        super().__init__()
        self._spoil = spoil
        self._after = after

    def search(
        self, handle: Any, queries: np.ndarray, k: int, bitmap: np.ndarray | None
    ) -> Nearest:
        found = super().search(handle, queries, k, bitmap)
        return self._spoil(found, len(self.held[handle])) if self.searches > self._after else found


class BitmapSabotaged(NumpyScanner):
    """Honest without bitmaps; another bitmap than was given is used."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
        super().__init__()
        self._change = change

    def search(
        self, handle: Any, queries: np.ndarray, k: int, bitmap: np.ndarray | None
    ) -> Nearest:
        changed = None if bitmap is None else self._change(bitmap)
        if changed is not None:
            bits = np.unpackbits(changed, count=len(self.held[handle]), bitorder="little")
            if np.count_nonzero(bits) < k:
                changed = None
        return super().search(handle, queries, k, changed)


def wrong_neighbour(found: Nearest, rows: int) -> Nearest:
    """Another row under the product of the last."""
    changed = found.rows.copy()
    changed[:, -1] = [
        next(row for row in range(rows) if row not in set(each.tolist())) for each in found.rows
    ]
    return found._replace(rows=changed)


def out_of_range(found: Nearest, rows: int) -> Nearest:
    """A row behind the last."""
    changed = found.rows.copy()
    changed[0, 0] = rows
    return found._replace(rows=changed)


def negative(found: Nearest, rows: int) -> Nearest:
    """The mark for no row."""
    changed = found.rows.copy()
    changed[-1, -1] = -1
    return found._replace(rows=changed)


def twice(found: Nearest, rows: int) -> Nearest:
    """The best row again in the second place."""
    changed = found.rows.copy()
    changed[:, 1:2] = changed[:, :1]
    return found._replace(rows=changed)


def missing_best(found: Nearest, rows: int) -> Nearest:
    """All but the first, and the last again as another row further down."""
    if found.rows.shape[1] < 2:
        return wrong_neighbour(found, rows)
    spare = wrong_neighbour(found, rows).rows[:, -1:]
    return Nearest(
        np.concatenate([found.products[:, 1:], found.products[:, -1:]], axis=1),
        np.concatenate([found.rows[:, 1:], spare], axis=1),
    )


def ascending(found: Nearest, rows: int) -> Nearest:
    """The right rows, worst first."""
    return Nearest(found.products[:, ::-1], found.rows[:, ::-1])


def nan(found: Nearest, rows: int) -> Nearest:
    """A product that is no number."""
    changed = found.products.copy()
    changed[0, 0] = np.nan
    return found._replace(products=changed)


def bfloat(found: Nearest, rows: int) -> Nearest:
    """Products as good as bfloat16: 8 bits."""
    raw = found.products.view(np.uint32) & np.uint32(0xFFFF0000)
    return found._replace(products=raw.view(np.float32))


def swapped_queries(found: Nearest, rows: int) -> Nearest:
    """Each query gets the answer of the next."""
    return Nearest(np.roll(found.products, 1, axis=0), np.roll(found.rows, 1, axis=0))


WRONG = [
    wrong_neighbour,
    out_of_range,
    negative,
    twice,
    missing_best,
    ascending,
    nan,
    bfloat,
    swapped_queries,
]

# Faults of an answer that can be seen without knowing the right one.
IMPOSSIBLE = [out_of_range, negative, twice, ascending, nan]


def ignored(bitmap: np.ndarray) -> None:
    """As faiss's classic kernels."""


def big_endian(bitmap: np.ndarray) -> np.ndarray:
    """Bits in the other order."""
    return np.packbits(np.unpackbits(bitmap, bitorder="little"), bitorder="big")


def inverted(bitmap: np.ndarray) -> np.ndarray:
    """What is forbidden is allowed."""
    return ~bitmap


def last_byte_lost(bitmap: np.ndarray) -> np.ndarray:
    """Rows of the last byte are never returned."""
    return np.concatenate([bitmap[:-1], np.zeros(1, np.uint8)])


def last_byte_full(bitmap: np.ndarray) -> np.ndarray:
    """Rows of the last byte always pass."""
    return np.concatenate([bitmap[:-1], np.full(1, 255, np.uint8)])


def shifted(bitmap: np.ndarray) -> np.ndarray:
    """One row off."""
    return np.packbits(np.roll(np.unpackbits(bitmap, bitorder="little"), 1), bitorder="little")


BITMAPS = [ignored, big_endian, inverted, last_byte_lost, last_byte_full, shifted]
