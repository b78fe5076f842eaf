"""The rows of an index, looked up by id and compared with the catalog's."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.catalog.check_reads import CheckedCrop
from service.gallery.index import Snapshot
from service.gallery.segment import SegmentView

__all__ = ["IndexRowTable"]


class IndexRowTable:
    """What an index held at one moment: some 30 bytes a row beside it.

    Args:
        snapshot: Of the index.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._views = snapshot.views
        living = [view.living_rows() for view in snapshot.views]
        keys = _keys(snapshot.ids())
        order = np.argsort(keys, kind="stable")
        segments = [np.full(len(rows), place) for place, rows in enumerate(living)]
        self._keys = keys[order]
        self._segments = np.concatenate([np.empty(0, np.int64), *segments])[order]
        self._rows = np.concatenate([np.empty(0, np.int64), *living])[order]
        self._seen = np.zeros(len(keys), dtype=bool)

    def __len__(self) -> int:
        """Rows."""
        return len(self._keys)

    def compare(self, block: Sequence[CheckedCrop]) -> tuple[list[UUID], list[UUID]]:
        """Crops with a vector that have no row, and those whose row is another, or is there twice.

        Args:
            block: Crops of the catalog, each given once to one of the calls.
        """
        crops = [crop for crop in block if crop.vector is not None]
        keys = np.frombuffer(b"".join(crop.crop_id.bytes for crop in crops), dtype="S16")
        first = np.searchsorted(self._keys, keys, side="left")
        behind = np.searchsorted(self._keys, keys, side="right")
        missing: list[UUID] = []
        differing: list[UUID] = []
        for crop, start, stop in zip(crops, first.tolist(), behind.tolist(), strict=True):
            self._seen[start:stop] = True
            if start == stop:
                missing.append(crop.crop_id)
            elif stop - start > 1 or not _equal(
                self._views[self._segments[start]], int(self._rows[start]), crop
            ):
                differing.append(crop.crop_id)
        return missing, differing

    def unseen(self) -> list[UUID]:
        """Rows of no crop that was given."""
        return [_uuid(key) for key in self._keys[~self._seen]]


def _equal(view: SegmentView, row: int, crop: CheckedCrop) -> bool:
    columns, words = view.columns, view.words
    return (
        columns.vectors[row].astype("<f4", copy=False).tobytes() == crop.vector
        and int(columns.times[row]) == crop.micros
        and words.cameras.values[columns.cameras[row]] == crop.camera_row
        and words.zones.values[columns.zones[row]] == crop.zone
        and words.tracks.values[columns.tracks[row]] == crop.track_id
        and words.attributes.mapping(int(columns.attributes[row])) == dict(crop.attributes)
    )


def _keys(halves: NDArray[np.uint64]) -> NDArray[np.bytes_]:
    """(N, 2) halves as N strings of 16 bytes, which sort."""
    return np.frombuffer(halves.astype(">u8").tobytes(), dtype="S16")


def _uuid(key: np.bytes_) -> UUID:
    # An S16 loses its last zeros when it leaves the array.
    return UUID(bytes=bytes(key).ljust(16, b"\0"))
