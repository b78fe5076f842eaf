"""The JSON of erasures."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, EncodedBytes, Field

from resight.errors import InvalidArgument
from service.domain import erasure as domain
from service.transport.rest.filter_schemas import Filter, Strict
from service.transport.rest.schemas import Crop
from service.transport.rest.search_schemas import StrictBase64

__all__ = [
    "ConfirmErasure",
    "CreateErasure",
    "Erasure",
    "ErasureCropPage",
    "ErasurePage",
    "UpdateRetention",
]

MAX_IDS = 10_000


class Track(Strict):
    """Every crop of a track, of one camera or of all that use its id."""

    track_id: str
    camera_id: str = ""


class Span(Strict):
    """Every crop of a span of time, on the cameras named or on all."""

    start_time: AwareDatetime
    end_time: AwareDatetime
    camera_ids: list[str] = Field(default=[], max_length=MAX_IDS)


class Likeness(Strict):
    """Every crop like an example: an image (base64, not stored) or a stored crop."""

    image: Annotated[bytes, EncodedBytes(encoder=StrictBase64)] | None = None
    crop_id: str | None = None
    min_probability: float | None = None
    min_score: float | None = None
    max_crops: int = 0
    filter: Filter = Filter()


class Subject(Strict):
    """Which crops must go: exactly one of these."""

    crop_ids: Annotated[list[str], Field(max_length=MAX_IDS)] | None = None
    track: Track | None = None
    span: Span | None = None
    camera_id: str | None = None
    likeness: Likeness | None = None

    def to_domain(self) -> domain.Subject:
        """Not yet checked.

        Raises:
            InvalidArgument: none, or several.
        """
        found: list[domain.Subject] = []
        if self.crop_ids is not None:
            found.append(domain.CropsSubject(self.crop_ids))
        if self.track is not None:
            found.append(domain.TrackSubject(self.track.track_id, self.track.camera_id))
        if self.span is not None:
            span = self.span
            found.append(domain.SpanSubject(span.start_time, span.end_time, span.camera_ids))
        if self.camera_id is not None:
            found.append(domain.CameraSubject(self.camera_id))
        if self.likeness is not None:
            told = self.likeness
            found.append(
                domain.LikenessSubject(
                    image=told.image,
                    crop_id=told.crop_id,
                    min_probability=told.min_probability,
                    min_score=told.min_score,
                    max_crops=told.max_crops,
                    filter=told.filter.to_domain(),
                )
            )
        if len(found) != 1:
            raise InvalidArgument(
                "subject must have exactly one of crop_ids, track, span, camera_id and likeness",
                field="subject",
            )
        return found[0]


class CreateErasure(Strict):
    """What to erase, and why."""

    subject: Subject
    reason: str


class ConfirmErasure(Strict):
    """What the reviewer decided."""

    crops: int = Field(description="Crops that go, by the reviewer's count.")
    keep_crop_ids: list[str] = Field(default=[], max_length=MAX_IDS)


class UpdateRetention(Strict):
    """How long a camera's crops are kept; null for the service's own `retention.days`."""

    retention_days: float | None


class Erasure(BaseModel):
    """An erasure."""

    erasure_id: str
    gallery: str
    state: str = Field(description="`planned`, `running`, `done` or `cancelled`.")
    subject: str = Field(description="What was asked, as JSON without any image.")
    reason: str
    principal: str
    confirmer: str
    crops: int
    kept: int
    removed: int
    absent: int
    more_matched: bool
    create_time: datetime
    confirm_time: datetime | None
    complete_time: datetime | None
    receipt: str = Field(description="The signed receipt, as JSON; empty before it is done.")

    @classmethod
    def of(cls, erasure: domain.Erasure) -> Self:
        """From the domain's value."""
        return cls(
            erasure_id=str(erasure.erasure_id),
            gallery=erasure.gallery,
            state=erasure.state.value,
            subject=erasure.subject,
            reason=erasure.reason,
            principal=erasure.principal,
            confirmer=erasure.confirmer,
            crops=erasure.listed,
            kept=erasure.kept,
            removed=erasure.removed,
            absent=erasure.absent,
            more_matched=erasure.more,
            create_time=erasure.create_time,
            confirm_time=erasure.confirm_time,
            complete_time=erasure.complete_time,
            receipt=erasure.receipt,
        )


class ErasurePage(BaseModel):
    """A page of erasures, newest first, without receipts."""

    erasures: list[Erasure]
    next_page_token: str


class ErasureCrop(BaseModel):
    """A crop of a list; ``crop`` while it is stored."""

    crop_id: str
    crop: Crop | None
    score: float | None
    outcome: str = Field(description="`listed`, `kept`, `removed` or `absent`.")
    remove_time: datetime | None

    @classmethod
    def of(cls, item: domain.ListedCrop) -> Self:
        """From the domain's value."""
        values: dict[str, Any] = {"score": item.score, "remove_time": item.remove_time}
        crop = None if item.crop is None else Crop.of(item.crop)
        return cls(crop_id=str(item.crop_id), crop=crop, outcome=item.outcome.value, **values)


class ErasureCropPage(BaseModel):
    """A page of a list."""

    crops: list[ErasureCrop]
    next_page_token: str
