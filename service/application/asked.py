"""What a search asks for, checked: everything that can be refused before the encoder is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from resight.bundle.calibration import Calibration
from resight.errors import InvalidArgument
from service.application.galleries import Galleries, Gallery
from service.application.query_vectors import unknown_crop
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain import names
from service.domain import query as queries
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.ports import CameraSpan, RowFilter
from service.domain.query import SearchQuery
from service.retrieval import probability
from service.retrieval.cursor import Cursor, decode_cursor, digest
from service.settings import LimitSettings

__all__ = ["Asked", "Asking"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked query.

    Args:
        gallery: The gallery searched.
        model_version: Its encoder's version.
        calibration: Of that encoder, or None.
        crop_id: The stored crop that is the query, or None.
        top_k: Matches wanted.
        row_filter: Which rows may match.
        lowest: The lowest score that the index is asked for, or None.
        min_probability: The lowest probability wanted, or None.
        digest: Of everything but the page wanted.
        cursor: Where the page before ended, or None.
    """

    gallery: Gallery
    model_version: str
    calibration: Calibration | None
    crop_id: UUID | None
    top_k: int
    row_filter: RowFilter
    lowest: float | None
    min_probability: float | None
    digest: bytes
    cursor: Cursor | None


class Asking:
    """Checks queries."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        limits: LimitSettings,
        calibrations: Mapping[str, Calibration],
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._limits = limits
        self._calibrations = calibrations

    async def checked(self, query: SearchQuery) -> Asked:
        """The query, when nothing is wrong with it.

        Raises:
            InvalidArgument: not exactly one query, or a bad value.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition: a probability asked of a model without calibration; a token of
                another model.
        """
        gallery = self._galleries.get(query.gallery)
        if len(_given(query)) != 1:
            raise _other_than_one(query)
        limits = self._limits
        top_k = queries.top_k(query.top_k, limit=limits.max_top_k)
        version = gallery.record.model_version
        calibration = self._calibrations.get(version)
        lowest = _lowest_score(query, calibration, version)
        chosen = query.filter.checked(
            max_cameras=limits.max_filter_cameras, max_terms=limits.max_filter_terms
        )
        own = None if query.crop_id is None else names.crop_id(query.crop_id)
        rule = query.own_camera.checked(stored=own is not None)
        digested = digest(
            (gallery.name, *_digested(query), query.min_score, query.min_probability, chosen, rule)
        )
        return Asked(
            gallery=gallery,
            model_version=version,
            calibration=calibration,
            crop_id=own,
            top_k=top_k,
            row_filter=gallery.row_filter(
                chosen,
                exclude_ids=() if own is None else (own,),
                exclude_spans=await self._own_camera(gallery, rule, own),
            ),
            lowest=lowest,
            min_probability=query.min_probability,
            digest=digested,
            cursor=decode_cursor(query.page_token, query=digested, model_version=version),
        )

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


def _lowest_score(
    query: SearchQuery, calibration: Calibration | None, model_version: str
) -> float | None:
    asked = queries.min_score(query.min_score)
    wanted = probability.checked_probability(query.min_probability)
    if wanted is None:
        return asked
    lowest = probability.lowest_score(probability.needed(calibration, model_version), wanted)
    return lowest if asked is None else max(asked, lowest)


def _digested(query: SearchQuery) -> tuple[object, ...]:
    image = None if query.image is None else hashlib.sha256(query.image).digest()
    embedding = query.embedding
    values = None if embedding is None else np.asarray(embedding.values, np.float32).tobytes()
    return image, query.crop_id, values


def _given(query: SearchQuery) -> list[str]:
    return [name for name in ("image", "crop_id", "embedding") if getattr(query, name) is not None]


def _other_than_one(query: SearchQuery) -> InvalidArgument:
    found = " and ".join(_given(query)) or "none"
    return InvalidArgument(
        f"query: send exactly one of image, crop_id and embedding (found {found})", field="query"
    )
