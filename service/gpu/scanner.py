"""What is asked of a GPU library: keep a matrix, find the rows of the largest products.

Everything else (which rows, what is exact, what to believe) is decided outside, and is tested
with scanners in memory, honest and sabotaged.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Nearest", "Scanner", "ScannerError"]


class ScannerError(Exception):
    """The GPU failed or answered what cannot be true."""


class Nearest(NamedTuple):
    """Rows of one search, best first.

    Args:
        products: (Q, k) float32, descending.
        rows: (Q, k) int64.
    """

    products: NDArray[np.float32]
    rows: NDArray[np.int64]


class Scanner(Protocol):
    """Matrices on a device, in half precision. Every method is called by one thread."""

    @property
    def max_k(self) -> int:
        """Most rows that a search returns."""
        ...

    def upload(self, vectors: NDArray[np.float32]) -> Any:
        """Copy (N, D) vectors to the device, rounded to half precision; a handle to them.

        Raises:
            ScannerError: no room, or the device failed.
        """
        ...

    def search(
        self,
        handle: Any,
        queries: NDArray[np.float32],
        k: int,
        bitmap: NDArray[np.uint8] | None,
    ) -> Nearest:
        """The ``k`` rows of the largest products with each of queries (Q, D).

        Queries are rounded to half precision, too; products are summed in float32.

        Args:
            handle: From ``upload``.
            queries: float32 (Q, D), C-contiguous.
            k: At most ``max_k``, and no more than rows pass.
            bitmap: Rows that may be returned, bit ``row % 8`` of byte ``row // 8``; None for all.

        Raises:
            ScannerError: the device failed.
        """
        ...

    def release(self, handle: Any) -> None:
        """Free what ``upload`` took."""
        ...
