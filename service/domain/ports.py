"""What the application asks of the world; adapters implement these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.crops.preprocessing import Preprocessing
from service.domain.crop import AttributeTerm
from service.domain.query import SearchMode

__all__ = [
    "BlobStore",
    "CameraSpan",
    "Clock",
    "Embedder",
    "Encoder",
    "GalleryIndex",
    "IndexHits",
    "IndexRows",
    "Priority",
    "RowFilter",
]


class Priority(IntEnum):
    """Who is served first when both wait for the encoder."""

    INTERACTIVE = 0
    BULK = 1


class Clock(Protocol):
    """The time of day."""

    def now(self) -> datetime:
        """The present, aware UTC."""
        ...


class Encoder(Protocol):
    """A loaded encoder, called by one thread at a time."""

    @property
    def model_version(self) -> str:
        """Version of the bundle."""
        ...

    @property
    def dimension(self) -> int:
        """Values a vector."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes an input."""
        ...

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors (B, dimension) of prepared images (B, height, width, 3)."""
        ...


class Embedder(Protocol):
    """The way of one image: decode, admission, batching, encoder."""

    @property
    def model_version(self) -> str:
        """Version of the live encoder."""
        ...

    @property
    def dimension(self) -> int:
        """Values a vector."""
        ...

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None
    ) -> NDArray[np.float32]:
        """The unit vector (dimension,) of an encoded image.

        Args:
            data: JPEG, PNG or WebP bytes.
            priority: Whether somebody is looking at the screen for it.
            deadline: Moment of ``time.monotonic()`` after which nobody wants the answer.

        Raises:
            UndecodableImage, ImageTooLarge, ResourceExhausted, DeadlineExceeded, Unavailable.
        """
        ...


class BlobStore(Protocol):
    """Crop images by key. Keys are relative paths with forward slashes. Blocking; thread-safe. A
    store that does not answer raises OSError.
    """

    def put(self, key: str, data: bytes) -> None:
        """Store the bytes whole; durable when this returns."""
        ...

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Store many, each whole, keys distinct; durable when this returns. When it raises, some
        may be stored.
        """
        ...

    def get(self, key: str) -> bytes:
        """The bytes; raises KeyError when there are none."""
        ...

    def delete(self, key: str) -> None:
        """Remove the bytes; nothing happens when there are none."""
        ...

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove many, as ``delete``. When it raises, some may be removed."""
        ...

    def keys(self) -> Iterator[str]:
        """Every stored key, in no order."""
        ...


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Rows to add to an index, aligned.

    Args:
        ids: (N, 2) uint64, the upper and lower half of each UUID.
        cameras: (N,) integer keys of cameras.
        times: (N,) int64 capture times, microseconds since 1970.
        vectors: (N, D) float32, unit L2 norm.
        zones: N zones; None when every one is empty.
        tracks: N track ids; None when every one is empty.
        attributes: N flat maps; None when every one is empty.
    """

    ids: NDArray[np.uint64]
    cameras: NDArray[np.integer[Any]]
    times: NDArray[np.int64]
    vectors: NDArray[np.float32]
    zones: Sequence[str] | None = None
    tracks: Sequence[str] | None = None
    attributes: Sequence[Mapping[str, str]] | None = None

    def check(self, dimension: int) -> None:
        """Pass if the columns fit each other and the dimension.

        Raises:
            ValueError: they do not.
        """
        count = len(self.times)
        aligned = (self.ids, self.cameras, self.zones, self.tracks, self.attributes)
        if self.vectors.shape != (count, dimension) or any(
            column is not None and len(column) != count for column in aligned
        ):
            raise ValueError(
                f"vectors {self.vectors.shape}, ids {self.ids.shape} and the other columns do not "
                f"fit {count} rows of dimension {dimension}"
            )


class CameraSpan(NamedTuple):
    """What one camera saw in ``start <= time < end``, microseconds."""

    camera: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows may match, all conditions together. Keys of cameras; ``start <= time < end`` in
    microseconds.

    An include of None means every row; an empty one matches nothing. A row passes when every term
    of ``include_attributes`` matches it and no term of ``exclude_attributes`` and no span does; a
    term without values asks for the key alone. ``exclude_ids`` is for a few rows, such as the
    query crop itself.
    """

    include_cameras: frozenset[int] | None = None
    exclude_cameras: frozenset[int] = frozenset()
    start: int | None = None
    end: int | None = None
    exclude_ids: frozenset[UUID] = frozenset()
    include_zones: frozenset[str] | None = None
    exclude_zones: frozenset[str] = frozenset()
    include_tracks: frozenset[str] | None = None
    exclude_tracks: frozenset[str] = frozenset()
    include_attributes: Sequence[AttributeTerm] = ()
    exclude_attributes: Sequence[AttributeTerm] = ()
    exclude_spans: Sequence[CameraSpan] = ()


@dataclass(frozen=True, slots=True)
class IndexHits:
    """What a search found: ids and scores best first, ties by id ascending.

    A score is the inner product of the float32 vectors, computed in float64 and rounded once to
    float32, so that it does not depend on how the rows were chosen.
    """

    ids: Sequence[UUID]
    scores: NDArray[np.float32]
    mode: SearchMode
    rows_scanned: int
    rows_total: int


class GalleryIndex(Protocol):
    """The vectors of one gallery and one model version.

    ``add``, ``remove`` and ``drop_before`` are called by one thread; searches by any, at the same
    time, and each sees one state of the index.
    """

    def add(self, rows: IndexRows) -> None:
        """Append rows whose ids are not in the index."""
        ...

    def remove(self, ids: Sequence[UUID]) -> int:
        """Remove rows by id; returns how many were there."""
        ...

    def drop_before(self, time: int) -> int:
        """Remove every row captured before this microsecond; returns how many there were."""
        ...

    def search(
        self,
        vector: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> IndexHits:
        """The best ``top_k`` rows that pass the filter and reach ``min_score``; vector (D,)."""
        ...

    def search_batch(
        self,
        vectors: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> list[IndexHits]:
        """As ``search``, for each row of vectors (Q, D), over one state of the index."""
        ...

    def vectors_of(self, ids: Sequence[UUID]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors of the rows that are there: places in ``ids``, ascending, and (len, D)."""
        ...

    def ids(self) -> NDArray[np.uint64]:
        """Every row's id, (N, 2) halves."""
        ...

    def discard(self) -> None:
        """Give back what it holds outside this process's memory; it is not used any more."""
        ...

    @property
    def tombstones(self) -> int:
        """Removed rows that still take room."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes it takes in this process's memory."""
        ...

    @property
    def device_bytes(self) -> int:
        """Bytes of its rows in a device's memory."""
        ...

    def __len__(self) -> int:
        """Rows a search can return."""
        ...
