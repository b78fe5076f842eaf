"""A gallery with crops of three cameras, and what is left of it, seen past the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from service.application.ingest import IngestItem, Outcome


@pytest.fixture
def ingested(at) -> Callable:
    """`await ingested(application, count)`: ids of crops, one a second, on c1, c2, c3, c1, …"""

    async def ingest(application, count: int, *, track: str = "", first: int = 0) -> list[UUID]:
        ids = []
        for number in range(first, first + count):
            item = IngestItem(
                "", f"c{number % 3 + 1}", at(number), b"crop %d" % number, track_id=track
            )
            result = await application.ingest.submit(item)
            assert result.outcome is Outcome.ACCEPTED, result.message
            ids.append(result.crop_id)
        return ids

    return ingest


@pytest.fixture
def left(query, tmp_path: Path) -> Callable:
    """`left(application)`: ids of crops in the catalog, its vectors, the images and the index."""

    def look(application) -> dict[str, set]:
        rows = query("select crop_row, crop_id, blob_id from crops")
        vectors = query("select crop_row from embeddings")
        blobs = {path.name for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()}
        index = application._galleries.get("").serving.index.ids()
        by_row = {row: UUID(bytes=bytes(crop)) for row, crop, _ in rows}
        by_blob = {UUID(bytes=bytes(blob)).hex: UUID(bytes=bytes(crop)) for _, crop, blob in rows}
        return {
            "rows": set(by_row.values()),
            "vectors": {by_row.get(row, row) for (row,) in vectors},
            "images": {by_blob.get(name, name) for name in blobs if len(name) == 32},
            "index": {
                UUID(int=int(high) << 64 | int(low)) for high, low in index.astype(np.uint64)
            },
        }

    return look
