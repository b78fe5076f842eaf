"""Which crops an erasure would remove: its subject checked, and the crops found, block by block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from resight.errors import InvalidArgument
from service.application.call_notes import note_filter
from service.application.gallery import Gallery
from service.application.row_filters import row_filter
from service.application.search import Search
from service.catalog import erasure_reads, lifecycle_reads
from service.catalog.erasure_lists import Listed
from service.catalog.store import Catalog
from service.domain import names
from service.domain.crop import MAX_TRACK_ID, CropFilter, TimeRange
from service.domain.erasure import (
    CameraSubject,
    CropsSubject,
    LikenessSubject,
    SpanSubject,
    Subject,
    TrackSubject,
    described,
    filter_described,
)
from service.domain.query import SearchQuery
from service.settings import LimitSettings

__all__ = ["Plan", "Planning"]

MAX_CROP_IDS = 10_000
DEFAULT_LIKENESS = 1000
BLOCK = 2000


@dataclass(slots=True)
class Plan:
    """A checked subject: as text, and as one way of finding its crops.

    Attributes:
        text: The subject as it is stored.
        ids: These crops.
        chosen: Or every crop that passes.
        query: Or everything like its example.
        most: Of these, at most.
        more: Set when more matched than ``most``.
    """

    text: str
    ids: Sequence[UUID] = ()
    chosen: CropFilter | None = None
    query: SearchQuery | None = None
    most: int = 0
    more: bool = False


class Planning:
    """Checks subjects and finds their crops."""

    def __init__(self, *, catalog: Catalog, search: Search, limits: LimitSettings) -> None:
        self._catalog = catalog
        self._search = search
        self._limits = limits

    def checked(self, live: Gallery, subject: Subject) -> Plan:
        """The plan of a subject; refused before anything is stored.

        Raises:
            InvalidArgument: it says nothing, or something bad.
            NotFound: a camera that was never registered.
        """
        match subject:
            case CropsSubject():
                return self._of_crops(subject)
            case LikenessSubject():
                return self._of_likeness(live, subject)
            case TrackSubject():
                if not subject.track_id:
                    raise InvalidArgument(
                        "subject.track.track_id is missing; crops without a track are erased by "
                        "span or camera",
                        field="subject.track.track_id",
                    )
                track = names.printable(
                    subject.track_id, field="subject.track.track_id", limit=MAX_TRACK_ID
                )
                chosen = CropFilter(
                    include_camera_ids=[subject.camera_id] if subject.camera_id else (),
                    include_track_ids=[track],
                )
                text = described("track", {"track_id": track, "camera_id": subject.camera_id})
            case SpanSubject():
                span = self._span(subject)
                chosen = CropFilter(include_camera_ids=subject.camera_ids, capture_range=span)
                text = described("span", filter_described(chosen))
            case CameraSubject():
                chosen = CropFilter(include_camera_ids=[subject.camera_id])
                text = described("camera", {"camera_id": subject.camera_id})
        chosen = self._filter(live, chosen)
        return Plan(text, chosen=chosen)

    async def blocks(self, live: Gallery, plan: Plan) -> AsyncIterator[list[Listed]]:
        """The crops of a plan; those of a filter in the order of capture, of a likeness from the
        best score down. Crops stored after this began are not among those of a filter.

        Raises:
            As ``Search.search``, for a likeness.
        """
        if plan.query is not None:
            async for found in self._alike(live, plan, plan.query):
                yield found
        elif plan.chosen is not None:
            async for found in self._stored(live, plan.chosen):
                yield found
        else:
            there = await self._catalog.read(erasure_reads.instances, live.row, plan.ids)
            yield [Listed(crop_id, there.get(crop_id)) for crop_id in plan.ids]

    async def _stored(self, live: Gallery, chosen: CropFilter) -> AsyncIterator[list[Listed]]:
        rows = row_filter(live, chosen)
        span = await self._catalog.read(lifecycle_reads.row_span, live.row)
        after: tuple[datetime, UUID] | None = None
        while span is not None:
            found = await self._catalog.read(
                erasure_reads.stored_in,
                live.row,
                chosen=rows,
                until_row=span[1],
                after=after,
                limit=BLOCK,
            )
            if found:
                yield [Listed(crop_id, blob_id) for _, crop_id, blob_id in found]
            if len(found) < BLOCK:
                return
            after = found[-1][:2]

    async def _alike(
        self, live: Gallery, plan: Plan, query: SearchQuery
    ) -> AsyncIterator[list[Listed]]:
        left, listed = plan.most, set[UUID]()
        while True:
            size = min(left, self._limits.max_top_k)
            answer = await self._search.search(replace(query, top_k=size), with_examples=True)
            scores = {match.crop.crop_id: match.score for match in answer.matches}
            there = await self._catalog.read(erasure_reads.instances, live.row, list(scores))
            found = [
                Listed(crop_id, there[crop_id], score)
                for crop_id, score in scores.items()
                if crop_id in there and crop_id not in listed
            ]
            listed |= {item.crop_id for item in found}
            if found:
                yield found
            left -= len(scores)
            if not answer.next_page_token or not scores or left <= 0:
                # Two models answer without pages: a full one may be the first of many.
                full = live.models.beside is not None and len(scores) == size
                plan.more = bool(answer.next_page_token) or full
                return
            query = replace(query, page_token=answer.next_page_token)

    def _of_crops(self, subject: CropsSubject) -> Plan:
        if not 1 <= len(subject.crop_ids) <= MAX_CROP_IDS:
            raise InvalidArgument(
                f"subject.crops has {len(subject.crop_ids)} ids; send 1 to {MAX_CROP_IDS}",
                field="subject.crops.crop_ids",
            )
        field = "subject.crops.crop_ids"
        ids = sorted({names.crop_id(value, field=field) for value in subject.crop_ids})
        return Plan(described("crops", {"count": len(ids)}), ids=ids)

    def _of_likeness(self, live: Gallery, subject: LikenessSubject) -> Plan:
        subject.checked_thresholds()
        if (subject.image is None) == (subject.crop_id is None):
            raise InvalidArgument(
                "subject.likeness needs an example: exactly one of image and crop_id",
                field="subject.likeness",
            )
        most = subject.max_crops or DEFAULT_LIKENESS
        if not 1 <= most <= self._limits.max_ranked:
            raise InvalidArgument(
                f"subject.likeness.max_crops {most} is out of range; send 1 to "
                f"{self._limits.max_ranked} (limits.max_ranked), or 0 for {DEFAULT_LIKENESS}",
                field="subject.likeness.max_crops",
            )
        chosen = self._filter(live, subject.filter)
        example = "image" if subject.crop_id is None else str(names.crop_id(subject.crop_id))
        text = described(
            "likeness",
            {
                "example": example,
                "model_version": live.serving.version,
                "min_probability": subject.min_probability,
                "min_score": subject.min_score,
                "max_crops": most,
                "filter": filter_described(chosen),
            },
        )
        query = SearchQuery(
            gallery=live.name,
            image=subject.image,
            crop_id=subject.crop_id,
            min_score=subject.min_score,
            min_probability=subject.min_probability,
            filter=chosen,
        )
        return Plan(text, query=query, most=most)

    def _filter(self, live: Gallery, chosen: CropFilter) -> CropFilter:
        checked = chosen.checked(
            max_cameras=self._limits.max_filter_cameras, max_terms=self._limits.max_filter_terms
        )
        note_filter(checked)
        row_filter(live, checked)
        return checked

    def _span(self, subject: SpanSubject) -> TimeRange:
        if subject.start_time is None or subject.end_time is None:
            raise InvalidArgument(
                "subject.span needs start_time and end_time; to erase all of a camera name the "
                "camera instead",
                field="subject.span",
            )
        return TimeRange(subject.start_time, subject.end_time).checked(field="subject.span")
