"""Our service: a real process on SQLite, asked over gRPC on loopback.

Its vectors come from its encoder alone, so the catalog is filled directly, as ``bench start`` does,
and there is no upsert of a vector; ``bench ingest`` measures how crops are stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.peers.contestant import blocks
from bench.peers.site import CAMERAS, Condition, Site
from bench.serving import import_bundle, serving
from bench.start import Block, fill
from resight.bundle import open_bundle
from resight.client.connection import Connection, connect
from resight.v1.gallery_service_pb2 import CreateCameraRequest, DeleteCropRequest
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.types_pb2 import Camera, Embedding

__all__ = ["Served"]

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Served:
    """``resight serve``."""

    filtering = "planner, exact"
    loads = False

    def __init__(self, site: Site, folder: Path, threads: int, *, reopen: bool) -> None:
        self._site, self._data = site, folder / "data"
        self._bundle = folder / "bundle"
        self._running = ExitStack()
        os.environ["RESIGHT_SEARCH__THREADS"] = str(threads)
        if not reopen:
            import_bundle(_encoder(folder / "encoder.onnx", site.dimension), folder)
        self._start()
        if not reopen:
            for camera in range(CAMERAS):
                self._connection.gallery.CreateCamera(
                    CreateCameraRequest(camera=Camera(camera_id=f"c{camera}"))
                )
            self.close()

    def load(self) -> Iterator[int]:
        cameras = self._site.cameras
        parts = (
            Block(
                [UUID(int=row) for row in range(start, stop)],
                [camera + 1 for camera in cameras[start:stop].tolist()],
                [BEGIN + timedelta(seconds=row) for row in range(start, stop)],
                vectors,
            )
            for start, stop, vectors in blocks(self._site)
        )
        yield from fill(self._data, parts)

    def loaded(self) -> None:
        for file in (self._data / "index").rglob("*.*"):
            file.unlink()
        self._start()

    def search(self, query: NDArray[np.float32], top_k: int, condition: Condition) -> list[int]:
        request = SearchRequest(
            embedding=Embedding(
                values=query.tobytes(), dimension=len(query), model_version=self._version
            ),
            top_k=top_k,
        )
        chosen = request.filter
        if condition.cameras is not None:
            chosen.include_camera_ids.extend(f"c{camera}" for camera in condition.cameras)
        if condition.start is not None:
            chosen.capture_range.start_time.FromDatetime(BEGIN + timedelta(seconds=condition.start))
        if condition.end is not None:
            chosen.capture_range.end_time.FromDatetime(BEGIN + timedelta(seconds=condition.end))
        answer = self._connection.search.Search(request)
        return [UUID(match.crop.crop_id).int for match in answer.matches]

    def upsert(self, row: int, vector: NDArray[np.float32]) -> None:
        raise NotImplementedError("vectors come from the encoder")

    def delete(self, row: int) -> None:
        self._connection.gallery.DeleteCrop(DeleteCropRequest(crop_id=str(UUID(int=row))))

    def close(self) -> None:
        self._running.close()

    def _start(self) -> None:
        target, _ = self._running.enter_context(serving(self._bundle, self._data))
        self._connection: Connection = self._running.enter_context(connect(target))
        self._version = open_bundle(self._bundle, golden=False).model_version


def _encoder(path: Path, dimension: int) -> Path:
    """The least encoder there can be: a matrix times the mean colour."""
    matrix = np.random.default_rng(0).standard_normal((3, dimension), dtype=np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 256, 128])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", dimension])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colour"]),
        helper.make_node("MatMul", ["colour", "matrix"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes, "colour", [image], [vector], [numpy_helper.from_array(matrix, "matrix")]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path
