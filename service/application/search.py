"""Search: a query turned into a vector, compared, and answered with crops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from uuid import UUID

from resight.bundle.calibration import Calibration
from resight.errors import DeadlineExceeded, InvalidArgument
from service.application.embed import Embed
from service.application.galleries import Galleries, Gallery
from service.application.query_vectors import QueryVectors, unknown_crop
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain import names
from service.domain import query as queries
from service.domain.crop import Crop
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.ports import CameraSpan, IndexHits
from service.domain.query import Match, SearchAnswer, SearchQuery
from service.retrieval import probability
from service.settings import LimitSettings

__all__ = ["Search"]


class Search:
    """Ranks the crops of a gallery by similarity to a query.

    Args:
        catalog: Where crops are read.
        galleries: Those served.
        embed: Makes vectors of images.
        search_threads: Indexes are searched on them.
        limits: Bounds on what is asked.
        calibrations: By model version, of the bundles that have one.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        embed: Embed,
        search_threads: Executor,
        limits: LimitSettings,
        calibrations: Mapping[str, Calibration],
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._vectors = QueryVectors(catalog=catalog, embed=embed)
        self._search_threads = search_threads
        self._limits = limits
        self._calibrations = calibrations

    async def search(self, query: SearchQuery) -> SearchAnswer:
        """The best matches, best first, ties by crop id.

        Everything that can be refused without the encoder is refused before it is asked.

        Raises:
            InvalidArgument: not exactly one query, or a bad value.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition: an embedding of another model, or a probability asked of a model
                without calibration.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        gallery = self._galleries.get(query.gallery)
        if len(_given(query)) != 1:
            raise _other_than_one(query)
        top_k = queries.top_k(query.top_k, limit=self._limits.max_top_k)
        min_score = self._min_score(gallery, query)
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
        vector = await self._vectors.of(gallery, query, own)
        if query.deadline is not None and time.monotonic() >= query.deadline:
            raise DeadlineExceeded("the deadline passed before the search began; allow more time")
        hits = await asyncio.get_running_loop().run_in_executor(
            self._search_threads, gallery.index.search, vector, top_k, row_filter, min_score
        )
        return await self._answer(gallery, hits, query.min_probability)

    def _min_score(self, gallery: Gallery, query: SearchQuery) -> float | None:
        """The lowest score that the index is asked for; the probability itself is judged later."""
        asked = queries.min_score(query.min_score)
        wanted = probability.checked_probability(query.min_probability)
        if wanted is None:
            return asked
        version = gallery.record.model_version
        calibration = probability.needed(self._calibrations.get(version), version)
        lowest = probability.lowest_score(calibration, wanted)
        return lowest if asked is None else max(asked, lowest)

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
                raise unknown_crop(gallery, crop_id)
            seen = Sighting(record.crop.camera_id, record.crop.capture_time)
        camera = gallery.camera(seen.camera_id, field="query_camera_id")
        return (CameraSpan(camera.camera_row, *rule.span_micros(seen)),)

    async def _answer(
        self, gallery: Gallery, hits: IndexHits, min_probability: float | None
    ) -> SearchAnswer:
        crops = await self._crops(gallery, hits) if hits.ids else []
        scores = hits.scores.tolist()
        calibration = self._calibrations.get(gallery.record.model_version)
        likely = [None] * len(scores) if calibration is None else calibration.probabilities(scores)
        # A crop deleted since the search is in the hits but no longer in the catalog.
        matches = tuple(
            Match(crop, score, same)
            for crop, score, same in zip(crops, scores, likely, strict=True)
            if crop is not None and (min_probability is None or (same or 0.0) >= min_probability)
        )
        return SearchAnswer(
            matches=matches,
            model_version=gallery.record.model_version,
            mode=hits.mode,
            rows_scanned=hits.rows_scanned,
            rows_total=hits.rows_total,
            index_lag_seconds=gallery.index_lag_seconds,
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


def _other_than_one(query: SearchQuery) -> InvalidArgument:
    found = " and ".join(_given(query)) or "none"
    return InvalidArgument(
        f"query: send exactly one of image, crop_id and embedding (found {found})", field="query"
    )
