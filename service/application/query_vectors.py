"""What a search compares with: vectors of images, of stored crops, and the caller's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.crops import ImageLimits, Preprocessing, prepare
from resight.errors import NotFound, ResightError
from service.application.embed import Embed
from service.application.serving import Serving
from service.catalog import gallery_reads
from service.catalog.store import Catalog
from service.domain import query_embedding
from service.domain.examples import CheckedExample, Fusion
from service.domain.ports import Priority
from service.retrieval.fusion import mean_query
from service.retrieval.quality import qualities, sharpness
from service.settings import LimitSettings

__all__ = ["Probe", "QueryVectors", "unknown_crop"]

Vectors = NDArray[np.float32]

# Large enough to tell a sharp crop from a blurred one, and the same for all.
LOOKED_AT = Preprocessing(128, 64, "bilinear")


@dataclass(frozen=True, slots=True)
class Probe:
    """What rows are compared with.

    Args:
        wanted: (P, D) float32: a row's score is the best of its products with them.
        unwanted: (N, D) float32: a row nearer to one of these is left out.
    """

    wanted: Vectors
    unwanted: Vectors

    def stacked(self) -> Vectors:
        """Wanted, then unwanted, (P + N, D)."""
        return np.concatenate((self.wanted, self.unwanted))

    @classmethod
    def split(cls, stacked: Vectors, unwanted: int) -> Probe:
        """What ``stacked`` was made of."""
        cut = len(stacked) - unwanted
        return cls(stacked[:cut], stacked[cut:])


class QueryVectors:
    """Makes the vectors of queries."""

    def __init__(self, *, catalog: Catalog, embed: Embed, limits: LimitSettings) -> None:
        self._catalog = catalog
        self._embed = embed
        self._limits = ImageLimits(
            max_bytes=limits.max_image_bytes, max_pixels=limits.max_pixels, min_side=limits.min_side
        )

    async def probe(
        self,
        serving: Serving,
        wanted: Sequence[CheckedExample],
        unwanted: Sequence[CheckedExample],
        *,
        fusion: Fusion,
        deadline: float | None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Probe:
        """The vectors of examples, fused.

        Raises:
            NotFound: unknown crop.
            FailedPrecondition: an embedding of another model.
            InvalidArgument, UndecodableImage, ImageTooLarge: a bad image or embedding; examples
                that cancel each other.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        rows = await asyncio.gather(
            *(self._vector(serving, item, deadline, priority) for item in (*wanted, *unwanted))
        )
        probe = Probe.split(np.stack(rows), len(unwanted))
        if fusion is Fusion.MAX:
            return probe
        weights = [item.weight for item in wanted]
        if fusion is Fusion.QUALITY:
            found = qualities(probe.wanted, await self._sharpnesses(wanted))
            weights = (found * weights).tolist()
        fused = mean_query(
            probe.wanted, weights, probe.unwanted, [item.weight for item in unwanted]
        )
        return Probe(fused[np.newaxis], probe.unwanted[:0])

    async def _vector(
        self,
        serving: Serving,
        item: CheckedExample,
        deadline: float | None,
        priority: Priority,
    ) -> Vectors:
        example = item.example
        try:
            if example.image is not None:
                return await self._embed.embedded(
                    serving, example.image, deadline=deadline, priority=priority
                )
            if example.embedding is not None:
                return query_embedding.unit_vector(
                    example.embedding,
                    dimension=serving.record.dimension,
                    model_version=serving.version,
                )
        except ResightError as error:
            if item.where and error.field:
                error.field = item.field(error.field)
                error.message = f"{item.where}: {error.message}"
            raise
        stored = None
        if item.crop_id is not None:
            stored = await self._catalog.read(gallery_reads.vector, serving.record, item.crop_id)
        if stored is None:
            raise unknown_crop(serving.record.name, item)
        return stored

    async def _sharpnesses(self, wanted: Sequence[CheckedExample]) -> list[float] | None:
        images = [item.example.image for item in wanted if item.example.image is not None]
        if len(images) < len(wanted):
            return None
        return [await asyncio.to_thread(self._sharpness, image) for image in images]

    def _sharpness(self, image: bytes) -> float:
        return sharpness(prepare(image, LOOKED_AT, limits=self._limits))


def unknown_crop(gallery: str, item: CheckedExample) -> NotFound:
    """What is said of a stored crop that is not there."""
    field = item.field("crop_id")
    return NotFound(
        f"{field}: crop {item.crop_id} is not in gallery {gallery!r}",
        field=field,
        reason="CROP_NOT_FOUND",
    )
