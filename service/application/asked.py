"""What a search asks for, checked: everything that can be refused before the encoder is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resight.bundle.calibration import Calibration
from service import call
from service.application import visibility
from service.application.call_notes import note_query
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.query_vectors import unknown_crop
from service.application.serving import Serving
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain import query as queries
from service.domain.examples import CheckedExample, Example, Fusion, checked_examples
from service.domain.groups import GroupBy, Grouping, grouping
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.ports import CameraSpan, RowFilter
from service.domain.query import SearchQuery
from service.domain.rerank import CheckedRerank, checked_rerank
from service.retrieval import probability
from service.retrieval.cursor import Cursor, decode_cursor, digest
from service.settings import LimitSettings

__all__ = ["Asked", "Asking"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked query.

    Args:
        gallery: The gallery searched.
        serving: The model that answers, from the first step to the last.
        wanted: Examples of the person.
        unwanted: Examples of others.
        fusion: How they become one ranking.
        top_k: Matches wanted.
        row_filter: Which rows may match.
        lowest: The lowest score that the index is asked for, or None.
        min_probability: The lowest probability wanted, or None.
        grouping: How matches are grouped, or None.
        rerank: How the best are ranked again, or None.
        digest: Of everything but the page wanted.
        cursor: Where the page before ended, or None.
        beside: The model that older crops are searched with, or None.
    """

    gallery: Gallery
    serving: Serving
    wanted: Sequence[CheckedExample]
    unwanted: Sequence[CheckedExample]
    fusion: Fusion
    top_k: int
    row_filter: RowFilter
    lowest: float | None
    min_probability: float | None
    grouping: Grouping | None
    rerank: CheckedRerank | None
    digest: bytes
    cursor: Cursor | None
    beside: Serving | None = None

    @property
    def calibration(self) -> Calibration | None:
        """Of the model that answers."""
        return self.serving.encoder.calibration


class Asking:
    """Checks queries."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        limits: LimitSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._limits = limits

    async def checked(self, query: SearchQuery) -> Asked:
        """The query, when nothing is wrong with it.

        Raises:
            InvalidArgument: no example or a bad one, or a bad value.
            NotFound: unknown gallery, crop or camera.
            PermissionDenied: it names what the caller may not see.
            FailedPrecondition: a probability asked of a model without calibration; a token of
                another model.
            Unavailable: the model that answers does not run here (``MODEL_NOT_LOADED``).
        """
        gallery = self._galleries.get(query.gallery)
        limits = self._limits
        top_k = queries.top_k(query.top_k, limit=limits.max_top_k)
        models = gallery.answering()
        serving = models.live
        lowest = _lowest_score(query, serving)
        named = query.filter.checked(
            max_cameras=limits.max_filter_cameras, max_terms=limits.max_filter_terms
        )
        wanted, unwanted = checked_examples(
            Example(query.image, query.crop_id, query.embedding),
            query.positives,
            query.negatives,
            fusion=query.fusion,
            limit=limits.max_examples,
        )
        rule = query.own_camera.checked(stored=all(item.crop_id for item in wanted))
        note_query(
            gallery.name,
            query,
            named,
            (*wanted, *unwanted),
            seen_by=rule.sighting.camera_id,
            model_version=serving.version,
        )
        chosen = visibility.narrowed(named)
        own = [item.crop_id for item in (*wanted, *unwanted) if item.crop_id is not None]
        await self._require_visible(gallery, (*wanted, *unwanted))
        if rule.sighting.camera_id:
            visibility.require_camera(rule.sighting.camera_id, field="query_camera_id")
        digested = digest(
            (
                gallery.name,
                _digested(wanted),
                _digested(unwanted),
                query.fusion,
                # gRPC's is a float32: a page may be asked for over the other transport.
                None if query.min_score is None else float(np.float32(query.min_score)),
                query.min_probability,
                chosen,
                rule,
            )
        )
        return Asked(
            gallery=gallery,
            serving=serving,
            wanted=wanted,
            unwanted=unwanted,
            fusion=query.fusion,
            top_k=top_k,
            row_filter=visibility.row_filter(
                gallery,
                chosen,
                exclude_ids=own,
                exclude_spans=await self._own_cameras(gallery, rule, wanted),
            ),
            lowest=lowest,
            min_probability=query.min_probability,
            grouping=grouping(
                query.group_by,
                query.group_size,
                groups=top_k,
                page_token=query.page_token,
                limit=limits.max_top_k,
            ),
            rerank=checked_rerank(
                query.rerank,
                top_k=top_k,
                grouped=query.group_by is not GroupBy.NOTHING,
                page_token=query.page_token,
                limit=limits.max_rerank,
            ),
            digest=digested,
            cursor=decode_cursor(query.page_token, query=digested, model_version=serving.version),
            beside=models.beside,
        )

    async def _require_visible(self, gallery: Gallery, examples: Sequence[CheckedExample]) -> None:
        """Refuse stored crops that the caller may not see, as if they did not exist."""
        if not call.current().known.is_limited:
            return
        for item in examples:
            if item.crop_id is None:
                continue
            record = await self._catalog.read(
                crop_reads.crop, gallery.record.gallery_row, item.crop_id
            )
            if record is None or not visibility.sees(record.crop):
                raise unknown_crop(gallery.name, item)

    async def _own_cameras(
        self, gallery: Gallery, rule: OwnCameraRule, wanted: Sequence[CheckedExample]
    ) -> tuple[CameraSpan, ...]:
        """What the cameras of the examples saw that may not match."""
        if rule.mode is OwnCamera.ANY:
            return ()
        seen = [rule.sighting] if rule.sighting.camera_id else []
        for item in wanted:
            if item.crop_id is None:
                continue
            record = await self._catalog.read(
                crop_reads.crop, gallery.record.gallery_row, item.crop_id
            )
            if record is None:
                raise unknown_crop(gallery.name, item)
            seen.append(Sighting(record.crop.camera_id, record.crop.capture_time))
        return tuple(
            CameraSpan(
                gallery.camera(sighting.camera_id, field="query_camera_id").camera_row,
                *rule.span_micros(sighting),
            )
            for sighting in seen
        )


def _lowest_score(query: SearchQuery, serving: Serving) -> float | None:
    asked = queries.min_score(query.min_score)
    wanted = probability.checked_probability(query.min_probability)
    if wanted is None:
        return asked
    calibration = probability.needed(serving.encoder.calibration, serving.version)
    lowest = probability.lowest_score(calibration, wanted)
    return lowest if asked is None else max(asked, lowest)


def _digested(examples: Sequence[CheckedExample]) -> list[object]:
    with np.errstate(over="ignore"):  # what is too large is refused when the query is read
        return [
            (
                None if item.example.image is None else hashlib.sha256(item.example.image).digest(),
                item.crop_id,
                None
                if item.example.embedding is None
                else np.asarray(item.example.embedding.values, np.float32).tobytes(),
                item.weight,
            )
            for item in examples
        ]
