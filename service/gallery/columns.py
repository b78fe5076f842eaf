"""What a segment holds of each row: values in columns, and what their codes mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.gallery.attribute_sets import AttributeSets
from service.gallery.postings import Postings
from service.gallery.vocabulary import Vocabulary

__all__ = ["ColumnPostings", "Columns", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    """What the codes of a segment mean."""

    cameras: Vocabulary[int] = field(default_factory=Vocabulary)
    zones: Vocabulary[str] = field(default_factory=Vocabulary)
    tracks: Vocabulary[str] = field(default_factory=Vocabulary)
    attributes: AttributeSets = field(default_factory=AttributeSets)

    def freeze(self) -> None:
        """Take less memory: no word is added any more."""
        for words in (self.cameras, self.zones, self.tracks, self.attributes):
            words.freeze()

    @property
    def nbytes(self) -> int:
        """About the memory they take."""
        return self.cameras.nbytes + self.zones.nbytes + self.tracks.nbytes + self.attributes.nbytes


@dataclass(frozen=True, slots=True)
class Columns:
    """N rows: 40 bytes each beside the vector.

    Args:
        ids: (N, 2) uint64 halves of UUIDs.
        times: (N,) int64 microseconds.
        cameras, zones, tracks, attributes: (N,) int32 codes.
        vectors: (N, D) float32, C-contiguous.
    """

    ids: NDArray[np.uint64]
    times: NDArray[np.int64]
    cameras: NDArray[np.int32]
    zones: NDArray[np.int32]
    tracks: NDArray[np.int32]
    attributes: NDArray[np.int32]
    vectors: NDArray[np.float32]

    @classmethod
    def empty(cls, rows: int, dimension: int) -> Columns:
        """Room for so many rows; memory nobody has written to is not resident."""
        return cls(
            ids=np.empty((rows, 2), np.uint64),
            times=np.empty(rows, np.int64),
            cameras=np.empty(rows, np.int32),
            zones=np.empty(rows, np.int32),
            tracks=np.empty(rows, np.int32),
            attributes=np.empty(rows, np.int32),
            vectors=np.empty((rows, dimension), np.float32),
        )

    def part(self, start: int, stop: int) -> Columns:
        """Windows on some of the rows."""
        return Columns(
            self.ids[start:stop],
            self.times[start:stop],
            self.cameras[start:stop],
            self.zones[start:stop],
            self.tracks[start:stop],
            self.attributes[start:stop],
            self.vectors[start:stop],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return (
            self.ids.nbytes
            + self.times.nbytes
            + self.cameras.nbytes
            + self.zones.nbytes
            + self.tracks.nbytes
            + self.attributes.nbytes
            + self.vectors.nbytes
        )


@dataclass(frozen=True, slots=True)
class ColumnPostings:
    """The rows of each code, tombstones included."""

    cameras: Postings
    zones: Postings
    tracks: Postings
    attributes: Postings

    @classmethod
    def of(cls, columns: Columns, words: Words) -> ColumnPostings:
        """Of filled columns."""
        return cls(
            Postings.of(columns.cameras, len(words.cameras)),
            Postings.of(columns.zones, len(words.zones)),
            Postings.of(columns.tracks, len(words.tracks)),
            Postings.of(columns.attributes, len(words.attributes)),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.cameras.nbytes + self.zones.nbytes + self.tracks.nbytes + self.attributes.nbytes
