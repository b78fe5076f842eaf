"""What the index holds at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.gallery.segment import SegmentView

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the index held at one moment, oldest segment first."""

    views: tuple[SegmentView, ...]

    @property
    def rows(self) -> int:
        """Rows, tombstones included."""
        return sum(view.rows for view in self.views)

    @property
    def living(self) -> int:
        """Rows a search can return."""
        return sum(view.living for view in self.views)

    def ids(self) -> NDArray[np.uint64]:
        """Ids of the living rows, (N, 2) uint64 halves."""
        parts = [view.columns.ids[view.living_rows()] for view in self.views]
        return np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)
