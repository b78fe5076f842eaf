"""Values that many rows share, each stored once and named by a small code.

One thread adds; any may look up. Codes are given in order and never change, so a reader that holds
older rows finds all their codes, and perhaps some that none of its rows has.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vocabulary"]

K = TypeVar("K", bound=Hashable)


class Vocabulary(Generic[K]):
    """Values in the order of their codes.

    Args:
        values: Those it begins with.
    """

    def __init__(self, values: Iterable[K] = ()) -> None:
        self._codes: dict[K, int] = {}
        self._values: list[K] = []
        self._value_bytes = 0
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
        return self._value_bytes + sys.getsizeof(self._codes) + sys.getsizeof(self._values)

    def encode(self, values: Iterable[K]) -> NDArray[np.int32]:
        """The code of each value, int32 (N,); new ones are added."""
        codes, known = self._codes, len(self._codes)
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

    def find(self, values: Iterable[K]) -> list[int]:
        """Codes of those of the values that have one."""
        codes = self._codes
        return [code for value in values if (code := codes.get(value)) is not None]
