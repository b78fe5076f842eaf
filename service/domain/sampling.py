"""A sample of rows that arrive in blocks, the same whenever it is drawn again.

A night tells people apart only by those of whom it has several crops: of 6,433 crops of
Market-1501's cameras 1 to 3 in their order, a sample of 398 shows 3 people four times or more when
crops are drawn one by one, and 38 when they are drawn in stretches of 256 rows. What that is worth
in mAP: docs/nightly.md.

With h = splitmix64, a row r has the key ::

    (h((r div stretch) xor h(seed)), h(r xor h(seed)))

and the ``size`` smallest keys win: whole stretches of the log, but for the last one, of which rows
are drawn singly. The stretches are the same whichever cameras are asked for, so samples of two
cameras show the same moments. Every row is equally likely, up to the hash. A row that has gone
since lets one other in and moves nothing else, so a stream of a sample can be taken up again after
a deletion.

Source: bottom-k sampling (Cohen and Kaplan, PODC 2007), here of clusters; splitmix64 (Steele, Lea
and Flood, OOPSLA 2014, figure 17 and Stafford's variant 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRETCH", "Sample"]

# Minutes on a busy site: as long as it takes people to pass from one camera to the next.
STRETCH = 256

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Sample:
    """At most ``size`` of the rows offered, in stretches of ``stretch`` rows of the log."""

    def __init__(self, size: int, seed: int, *, stretch: int = STRETCH) -> None:
        self._size = size
        self._stretch = stretch
        self._seed = _mixed(np.array([seed & (2**64 - 1)], dtype=np.uint64))
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)

    def offer(self, rows: NDArray[np.int64]) -> None:
        """Consider rows, (N,) int64, none of which was offered before."""
        self._rows = np.concatenate((self._rows, rows))
        if len(self._rows) > self._size:
            stretches = self._keys(self._rows // self._stretch)
            order = np.lexsort((self._keys(self._rows), stretches))
            self._rows = self._rows[order[: self._size]]

    def rows(self) -> NDArray[np.int64]:
        """The sample, ascending."""
        return np.sort(self._rows)

    def _keys(self, values: NDArray[np.int64]) -> NDArray[np.uint64]:
        return _mixed(values.astype(np.uint64) ^ self._seed)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))
