"""Qdrant's local mode, which is qdrant-client's own Python: in memory, and in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import blocks
from bench.peers.site import Condition, Site

__all__ = ["QdrantFolder", "QdrantMemory"]

NAME = "crops"
REQUEST = 1_000


class QdrantFolder:
    """``QdrantClient(path=...)``."""

    filtering = "conditions on the payload"
    loads = True
    in_memory = False

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        from qdrant_client import QdrantClient, models

        del threads
        self._site, self._models = site, models
        self._client = (
            QdrantClient(":memory:") if self.in_memory else QdrantClient(path=str(folder / "q"))
        )
        if not reopen:
            self._client.create_collection(
                NAME,
                vectors_config=models.VectorParams(
                    size=site.dimension, distance=models.Distance.DOT
                ),
            )

    def load(self) -> Iterator[int]:
        cameras = self._site.cameras
        for start, stop, vectors in blocks(self._site):
            for first in range(start, stop, REQUEST):
                last = min(first + REQUEST, stop)
                self._put(
                    range(first, last), cameras[first:last], vectors[first - start : last - start]
                )
            yield stop

    def loaded(self) -> None:
        pass

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        models = self._models
        must: list[object] = []
        if condition.cameras is not None:
            any_of = models.MatchAny(any=list(condition.cameras))
            must.append(models.FieldCondition(key="camera", match=any_of))
        if condition.start is not None or condition.end is not None:
            span = models.Range(gte=condition.start, lt=condition.end)
            must.append(models.FieldCondition(key="time", range=span))
        found = self._client.query_points(
            NAME,
            query=query,
            query_filter=models.Filter(must=must) if must else None,
            limit=top_k,
            with_payload=False,
        )
        return [int(point.id) for point in found.points]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self._put(range(row, row + 1), self._site.cameras[row : row + 1], vector[np.newaxis])

    def delete(self, row: int) -> None:
        self._client.delete(NAME, points_selector=[row])

    def close(self) -> None:
        self._client.close()

    def _put(self, rows: range, cameras: NDArray[np.int32], vectors: NDArray[np.float32]) -> None:
        self._client.upsert(
            NAME,
            points=self._models.Batch(
                ids=list(rows),
                vectors=vectors.tolist(),
                payloads=[
                    {"camera": camera, "time": row}
                    for row, camera in zip(rows, cameras.tolist(), strict=True)
                ],
            ),
        )


class QdrantMemory(QdrantFolder):
    """``QdrantClient(":memory:")``, which keeps nothing."""

    in_memory = True
