"""What the comparison asks of a vector store; each adapter is the shortest honest use of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.peers.site import Condition, Site

__all__ = ["BLOCK", "Contestant", "blocks"]

BLOCK = 5_000


class Contestant(Protocol):
    """One store over one site. Rows are numbers.

    The constructor is given the site, a folder of its own, the threads it may use and whether it
    opens what the folder holds; it is not timed but for the opening.
    """

    # How it filters, in a few words, for the table.
    filtering: str
    # Whether `load` is how its users store rows, so that its rate means something.
    loads: bool

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None: ...

    def load(self) -> Iterator[int]:
        """Store the site's rows; yields how many are stored after each block."""
        ...

    def loaded(self) -> None:
        """Whatever is needed before the first search."""
        ...

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        """The best rows, best first."""
        ...

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        """Give a row another vector."""
        ...

    def delete(self, row: int) -> None:
        """Remove a row."""
        ...

    def close(self) -> None:
        """Leave everything in the folder."""
        ...


def blocks(site: Site) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Start, stop and vectors of each block of rows."""
    vectors = site.vectors
    for start in range(0, site.rows, BLOCK):
        stop = min(start + BLOCK, site.rows)
        yield start, stop, np.array(vectors[start:stop])
