"""A uniform sample of rows that arrive in blocks, the same whenever it is drawn again.

Each row gets the key splitmix64(row xor splitmix64(seed)), and the ``size`` smallest keys win:
every subset of that size is equally likely, up to the hash. A row that has gone since lets one
other in and moves nothing else, so a stream of a sample can be taken up again after a deletion.

Source: bottom-k sampling (Cohen and Kaplan, PODC 2007); splitmix64 (Steele, Lea and Flood, OOPSLA
2014, figure 17 and Stafford's variant 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sample"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Sample:
    """At most ``size`` of the rows offered."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = _mixed(np.array([seed & (2**64 - 1)], dtype=np.uint64))
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)
        self._keys: NDArray[np.uint64] = np.empty(0, np.uint64)

    def offer(self, rows: NDArray[np.int64]) -> None:
        """Consider rows, (N,) int64, none of which was offered before."""
        self._rows = np.concatenate((self._rows, rows))
        keys = _mixed(rows.astype(np.uint64) ^ self._seed)
        self._keys = np.concatenate((self._keys, keys))
        if len(self._rows) > self._size:
            kept = np.argpartition(self._keys, self._size)[: self._size]
            self._rows, self._keys = self._rows[kept], self._keys[kept]

    def rows(self) -> NDArray[np.int64]:
        """The sample, ascending."""
        return np.sort(self._rows)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))
