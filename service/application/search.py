"""Search: a query turned into a vector, compared, and answered with crops."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from resight.errors import DeadlineExceeded, InvalidArgument, NotFound
from service.application.embed import Embed
from service.application.galleries import Galleries, Gallery
from service.catalog import crop_reads, gallery_reads
from service.catalog.store import Catalog
from service.domain import names
from service.domain import query as queries
from service.domain.crop import Crop
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.ports import CameraSpan, IndexHits
from service.domain.query import Match, SearchAnswer, SearchQuery
from service.settings import LimitSettings

__all__ = ["Search"]


class Search:
    """Ranks the crops of a gallery by similarity to a query."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        embed: Embed,
        search_threads: Executor,
        limits: LimitSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._embed = embed
        self._search_threads = search_threads
        self._limits = limits

    async def search(self, query: SearchQuery) -> SearchAnswer:
        """The best matches, best first, ties by crop id.

        Everything that can be refused without the encoder is refused before it is asked.

        Raises:
            InvalidArgument: not exactly one query, or a bad value.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition: an embedding of another model.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        gallery = self._galleries.get(query.gallery)
        if len(_given(query)) != 1:
            raise _other_than_one(query)
        top_k = queries.top_k(query.top_k, limit=self._limits.max_top_k)
        min_score = queries.min_score(query.min_score)
        chosen = query.filter.checked(
            max_cameras=self._limits.max_filter_cameras, max_terms=self._limits.max_filter_terms
        )
        own = None if query.crop_id is None else names.crop_id(query.crop_id)
        rule = query.own_camera.checked(stored=own is not None)
        row_filter = gallery.row_filter(
            chosen,
            exclude_ids=() if own is None else (own,),
            exclude_spans=await self._own_camera(gallery, rule, own),
        )
        vector = await self._vector(gallery, query, own)
        if query.deadline is not None and time.monotonic() >= query.deadline:
            raise DeadlineExceeded("the deadline passed before the search began; allow more time")
        hits = await asyncio.get_running_loop().run_in_executor(
            self._search_threads, gallery.index.search, vector, top_k, row_filter, min_score
        )
        return await self._answer(gallery, hits)

    async def _own_camera(
        self, gallery: Gallery, rule: OwnCameraRule, crop_id: UUID | None
    ) -> tuple[CameraSpan, ...]:
        """What the query's own camera saw that may not match."""
        if rule.mode is OwnCamera.ANY:
            return ()
        seen = rule.sighting
        if crop_id is not None:
            record = await self._catalog.read(crop_reads.crop, gallery.record.gallery_row, crop_id)
            if record is None:
                raise _unknown(gallery, crop_id)
            seen = Sighting(record.crop.camera_id, record.crop.capture_time)
        camera = gallery.camera(seen.camera_id, field="query_camera_id")
        return (CameraSpan(camera.camera_row, *rule.span_micros(seen)),)

    async def _vector(
        self, gallery: Gallery, query: SearchQuery, crop_id: UUID | None
    ) -> NDArray[np.float32]:
        if query.image is not None:
            vector, _ = await self._embed.embed(gallery.name, query.image, deadline=query.deadline)
            return vector
        if crop_id is not None:
            stored = await self._catalog.read(gallery_reads.vector, gallery.record, crop_id)
            if stored is None:
                raise _unknown(gallery, crop_id)
            return stored
        if query.embedding is not None:
            return queries.unit_vector(
                query.embedding,
                dimension=gallery.record.dimension,
                model_version=gallery.record.model_version,
            )
        raise _other_than_one(query)

    async def _answer(self, gallery: Gallery, hits: IndexHits) -> SearchAnswer:
        crops = await self._crops(gallery, hits) if hits.ids else []
        # A crop deleted since the search is in the hits but no longer in the catalog.
        matches = tuple(
            Match(crop, score)
            for crop, score in zip(crops, hits.scores.tolist(), strict=True)
            if crop is not None
        )
        return SearchAnswer(
            matches=matches,
            model_version=gallery.record.model_version,
            mode=hits.mode,
            rows_scanned=hits.rows_scanned,
            rows_total=hits.rows_total,
        )

    async def _crops(self, gallery: Gallery, hits: IndexHits) -> list[Crop | None]:
        return await self._catalog.read(
            crop_reads.crops_by_id,
            gallery.record.gallery_row,
            hits.ids,
            gallery_size=hits.rows_total,
        )


def _given(query: SearchQuery) -> list[str]:
    return [name for name in ("image", "crop_id", "embedding") if getattr(query, name) is not None]


def _unknown(gallery: Gallery, crop_id: UUID) -> NotFound:
    return NotFound(
        f"crop {crop_id} is not in gallery {gallery.name!r}",
        field="crop_id",
        reason="CROP_NOT_FOUND",
    )


def _other_than_one(query: SearchQuery) -> InvalidArgument:
    found = " and ".join(_given(query)) or "none"
    return InvalidArgument(
        f"query: send exactly one of image, crop_id and embedding (found {found})", field="query"
    )
