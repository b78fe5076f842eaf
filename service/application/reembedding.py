"""Vectors of a model for crops that are stored: from their images, or from another model's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from resight.bundle import open_bundle
from resight.bundle.vector_map import VectorMap, load_vector_map
from resight.errors import (
    FailedPrecondition,
    NotFound,
    ResightError,
    ResourceExhausted,
    Unavailable,
)
from service.application.archives import Archives
from service.application.serving import Serving
from service.catalog import lifecycle_reads, model_vectors
from service.catalog.fillings import Made
from service.catalog.model_vectors import StoredCrop
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog
from service.domain.filling import FailureReason, FillingSource
from service.domain.identifier import image_key
from service.domain.ports import BlobStore, Priority

__all__ = ["Reembedding"]

NORM_SLACK = 1e-3
BUSY_SECONDS = 0.2


class Reembedding:
    """Makes vectors of stored crops, at bulk priority.

    Args:
        catalog: Where old vectors are read.
        blobs: Where images are.
        blob_threads: Read them.
        archives: Where the maps of bundles are.
    """

    def __init__(
        self, *, catalog: Catalog, blobs: BlobStore, blob_threads: Executor, archives: Archives
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._archives = archives
        self._maps: dict[tuple[int, str], VectorMap] = {}

    async def made(
        self,
        serving: Serving,
        crops: Sequence[StoredCrop],
        *,
        source: FillingSource,
        live: GalleryRecord,
    ) -> list[Made]:
        """The vector of each crop under a model, or why there is none.

        Args:
            serving: The model.
            crops: At most a few thousand.
            source: What to make them of.
            live: The model whose vectors are carried over.

        Raises:
            Unavailable, OSError: not now.
        """
        if source is FillingSource.NONE:
            return []
        if source is FillingSource.IMAGES:
            return list(await asyncio.gather(*(self._embedded(serving, crop) for crop in crops)))
        mapping = await self.vector_map(serving.record, live.model_version)
        rows = [crop.crop_row for crop in crops]
        old = await self._catalog.read(model_vectors.vectors_of, live.model_row, rows)
        return [_mapped(mapping, crop, old.get(crop.crop_row)) for crop in crops]

    async def vector_map(self, record: GalleryRecord, old: str) -> VectorMap:
        """The map of a model's bundle from the vectors of another version.

        Raises:
            FailedPrecondition: the bundle has none (``NO_VECTOR_MAP``) or is not stored.
        """
        known = self._maps.get((record.model_row, old))
        if known is not None:
            return known
        digest = await self._catalog.read(lifecycle_reads.archive_digest, record.model_row)
        if digest is None:
            raise FailedPrecondition(
                f"the archive of model {record.model_version} is not stored; register it again",
                field="model_version",
                reason="BUNDLE_MISSING",
            )
        path = await self._archives.fetch(record.name, digest)
        try:
            loaded = await asyncio.to_thread(lambda: load_vector_map(open_bundle(path), old))
        except NotFound as error:
            raise FailedPrecondition(
                "privacy.store_images is off, so no crop can be embedded anew, and the bundle has "
                f"no map that carries old vectors over: {error.message}. Serving them beside the "
                "new ones needs a calibration in both bundles",
                field="model_version",
                reason="NO_VECTOR_MAP",
            ) from error
        self._maps[record.model_row, old] = loaded
        return loaded

    async def _embedded(self, serving: Serving, crop: StoredCrop) -> Made:
        key = image_key(serving.record.name, crop.blob_id)
        loop = asyncio.get_running_loop()
        try:
            image = await loop.run_in_executor(self._blob_threads, self._blobs.get, key)
        except KeyError:
            return Made(crop, None, FailureReason.IMAGE_LOST)
        while True:
            try:
                vector = await serving.encoder.embedder.embed_image(
                    image, priority=Priority.BULK, deadline=None
                )
            except ResourceExhausted:
                await asyncio.sleep(BUSY_SECONDS)
            except Unavailable:
                raise
            except ResightError as error:
                broken = error.reason == FailureReason.ENCODER_FAILED.value
                reason = FailureReason.ENCODER_FAILED if broken else FailureReason.UNDECODABLE
                return Made(crop, None, reason)
            else:
                if _whole(vector, serving.record.dimension):
                    return Made(crop, vector)
                return Made(crop, None, FailureReason.ENCODER_FAILED)


def _whole(vector: NDArray[np.float32], dimension: int) -> bool:
    norm = float(np.linalg.norm(vector))
    return vector.shape == (dimension,) and abs(norm - 1.0) < NORM_SLACK


def _mapped(mapping: VectorMap, crop: StoredCrop, old: NDArray[np.float32] | None) -> Made:
    if old is None:
        return Made(crop, None, FailureReason.NO_OLD_VECTOR)
    # One by one: the same product whatever else is in the block, so that it can be verified.
    return Made(crop, mapping.apply(old[np.newaxis])[0])
