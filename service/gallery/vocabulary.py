"""Values that many rows share, each stored once and named by a small code.

One thread adds; any may look up. Codes are given in order and never change, so a reader that holds
older rows finds all their codes, and perhaps some that none of its rows has.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vocabulary"]

K = TypeVar("K", bound=Hashable)

# Up to this many values a dictionary is small, and the quickest to look up.
FEW = 1024

# A code as an object.
_NUMBER = 28
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


class Vocabulary(Generic[K]):
    """Values in the order of their codes.

    Args:
        values: Those it begins with.
    """

    def __init__(self, values: Iterable[K] = ()) -> None:
        self._codes: dict[K, int] = {}
        self._values: list[K] = []
        self._value_bytes = 0
        # Once frozen: hashes ascending, and the code of each.
        self._hashes: NDArray[np.int64] | None = None
        self._hashed = np.empty(0, np.int32)
        self.encode(values)

    def __len__(self) -> int:
        """Codes given."""
        return len(self._values)

    @property
    def values(self) -> Sequence[K]:
        """By code; append-only."""
        return self._values

    @property
    def nbytes(self) -> int:
        """About the memory it takes."""
        codes = sys.getsizeof(self._codes) + _NUMBER * len(self._codes)
        lists = codes + sys.getsizeof(self._values)
        hashes = 0 if self._hashes is None else self._hashes.nbytes + self._hashed.nbytes
        return self._value_bytes + lists + hashes

    def encode(self, values: Iterable[K]) -> NDArray[np.int32]:
        """The code of each value, int32 (N,); new ones are added."""
        # Not len(codes): values whose encoding broke off are made up for here.
        codes, known = self._codes, len(self._values)
        found = np.array([codes.setdefault(value, len(codes)) for value in values], np.int32)
        if len(codes) > known:
            added = list(islice(reversed(codes), len(codes) - known))[::-1]
            self._value_bytes += sum(map(sys.getsizeof, added))
            self._values.extend(added)
        return found

    def adopt(self, other: Vocabulary[K], codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes of ``other`` as codes of this vocabulary; only values in use are taken over."""
        used, places = np.unique(codes, return_inverse=True)
        return self.encode([other.values[code] for code in used.tolist()])[places]

    def freeze(self) -> None:
        """Take less memory; nothing can be encoded any more. Before any other thread looks up."""
        if len(self._values) <= FEW:
            return
        hashes = np.fromiter(map(hash, self._values), np.int64, len(self._values))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._hashed = hashes[order], order.astype(np.int32)
        self._codes = {}

    def find(self, values: Iterable[K]) -> list[int]:
        """Codes of those of the values that have one."""
        hashes = self._hashes
        if hashes is not None:
            return [code for value in values if (code := self._place(hashes, value)) is not None]
        codes = self._codes
        return [code for value in values if (code := codes.get(value)) is not None]

    def _place(self, hashes: NDArray[np.int64], value: K) -> int | None:
        """The code of a value, once frozen."""
        first, last = (int(np.searchsorted(hashes, hash(value), side)) for side in _SIDES)
        for code in self._hashed[first:last].tolist():
            if self._values[code] == value:
                return int(code)
        return None
