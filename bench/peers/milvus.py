"""Milvus Lite through pymilvus: FLAT, inner product, strong consistency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import blocks
from bench.peers.site import Condition, Site

__all__ = ["MilvusLite"]

NAME = "crops"


class MilvusLite:
    """``MilvusClient(FILE)``."""

    filtering = "expression"
    loads = True

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        from pymilvus import DataType, MilvusClient

        del threads
        self._site = site
        self._client = MilvusClient(str(folder / "milvus.db"))
        if reopen:
            self._client.load_collection(NAME)
            return
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("camera", DataType.INT64)
        schema.add_field("time", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=site.dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            NAME, schema=schema, index_params=index, consistency_level="Strong"
        )

    def load(self) -> Iterator[int]:
        cameras = self._site.cameras
        for start, stop, vectors in blocks(self._site):
            self._put(range(start, stop), cameras[start:stop], vectors)
            yield stop

    def loaded(self) -> None:
        self._client.flush(NAME)
        self._client.load_collection(NAME)

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        terms: list[str] = []
        if condition.cameras is not None:
            terms.append(f"camera in {list(condition.cameras)}")
        if condition.start is not None:
            terms.append(f"time >= {condition.start}")
        if condition.end is not None:
            terms.append(f"time < {condition.end}")
        found = self._client.search(
            NAME, data=[query.tolist()], filter=" and ".join(terms), limit=top_k
        )
        return [int(hit["id"]) for hit in found[0]]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        self._put(range(row, row + 1), self._site.cameras[row : row + 1], vector[np.newaxis])

    def delete(self, row: int) -> None:
        self._client.delete(NAME, ids=[row])

    def close(self) -> None:
        self._client.flush(NAME)
        self._client.close()

    def _put(self, rows: range, cameras: NDArray[np.int32], vectors: NDArray[np.float32]) -> None:
        self._client.upsert(
            NAME,
            [
                {"id": row, "camera": camera, "time": row, "vector": vector}
                for row, camera, vector in zip(rows, cameras.tolist(), vectors, strict=True)
            ],
        )
