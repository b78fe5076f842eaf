"""Erasures: which crops must go, the list that is reviewed, and what became of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from resight.errors import InvalidArgument
from service.domain import names
from service.domain.credential_text import without_credentials
from service.domain.crop import Crop, CropFilter

__all__ = [
    "CameraSubject",
    "CropOutcome",
    "CropsSubject",
    "Erasure",
    "ErasureState",
    "LikenessSubject",
    "ListedCrop",
    "SpanSubject",
    "Subject",
    "TrackSubject",
    "described",
    "filter_described",
    "kind_of",
    "reason",
]

MAX_REASON = 500


class ErasureState(StrEnum):
    """How far an erasure has come; ``listing`` is shown to nobody."""

    LISTING = "listing"
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class CropOutcome(StrEnum):
    """What became of a crop on the list; ``absent``: it had gone before, or was never there."""

    LISTED = "listed"
    KEPT = "kept"
    REMOVED = "removed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class CropsSubject:
    """These crops."""

    crop_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class TrackSubject:
    """Every crop of a track, of one camera or of all that use its id."""

    track_id: str
    camera_id: str = ""


@dataclass(frozen=True, slots=True)
class SpanSubject:
    """Every crop captured in ``start_time <= t < end_time``, on these cameras or on all."""

    start_time: datetime | None
    end_time: datetime | None
    camera_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CameraSubject:
    """Every crop of a camera."""

    camera_id: str


@dataclass(frozen=True, slots=True)
class LikenessSubject:
    """Every crop like one example; the image is used once and stored nowhere."""

    image: bytes | None = None
    crop_id: str | None = None
    min_probability: float | None = None
    min_score: float | None = None
    max_crops: int = 0
    filter: CropFilter = field(default_factory=CropFilter)

    def checked_thresholds(self) -> None:
        """Refuse a likeness that everything has.

        Raises:
            InvalidArgument: neither threshold is given.
        """
        if self.min_probability is None and self.min_score is None:
            raise InvalidArgument(
                "subject.likeness needs min_probability (or min_score, where the model has no "
                "calibration): without one every crop is like the example",
                field="subject.likeness.min_probability",
            )
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise InvalidArgument(
                "subject.likeness.min_score must be -1 to 1", field="subject.likeness.min_score"
            )


Subject = CropsSubject | TrackSubject | SpanSubject | CameraSubject | LikenessSubject
_KINDS = {
    CropsSubject: "crops",
    TrackSubject: "track",
    SpanSubject: "span",
    CameraSubject: "camera",
    LikenessSubject: "likeness",
}


def kind_of(subject: Subject) -> str:
    """What a subject is called, checked or not."""
    return _KINDS[type(subject)]


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as stored.

    Attributes:
        listed: Crops that are to go, or went.
        kept: Crops that the reviewer took off the list.
        removed: Crops removed so far.
        absent: Crops of the list that were not there when it came to them.
        more: Whether more crops matched than the list may hold.
        vectors: Vectors removed so far, by key of the model.
    """

    erasure_row: int
    erasure_id: UUID
    gallery_row: int
    gallery: str
    state: ErasureState
    subject: str
    reason: str
    principal: str
    confirmer: str
    listed: int
    kept: int
    removed: int
    absent: int
    more: bool
    vectors: Mapping[str, int]
    create_time: datetime
    confirm_time: datetime | None
    complete_time: datetime | None
    receipt: str


@dataclass(frozen=True, slots=True)
class ListedCrop:
    """A crop of an erasure's list; ``crop`` while the instance that was listed is stored."""

    place: int
    crop_id: UUID
    crop: Crop | None
    score: float | None
    outcome: CropOutcome
    remove_time: datetime | None


def reason(value: str) -> str:
    """Why somebody erases: 1 to 500 printable characters, without a credential among them.

    Raises:
        InvalidArgument: it is not.
    """
    if not value.strip():
        raise InvalidArgument(
            "reason is missing; say why, for the receipt and the audit, for example a case number",
            field="reason",
        )
    return without_credentials(names.printable(value, field="reason", limit=MAX_REASON))


def described(kind: str, conditions: Mapping[str, Any]) -> str:
    """A subject as it is stored: canonical JSON, without what is empty or a credential."""
    told = {name: value for name, value in conditions.items() if value not in (None, "", (), [])}
    text = json.dumps({kind: told}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return without_credentials(text)


def filter_described(chosen: CropFilter) -> dict[str, Any]:
    """A checked filter as JSON values, without what is empty."""
    span = chosen.capture_range
    values: dict[str, Any] = {
        "include_camera_ids": list(chosen.include_camera_ids),
        "exclude_camera_ids": list(chosen.exclude_camera_ids),
        "start_time": span.start_time.isoformat() if span.start_time else None,
        "end_time": span.end_time.isoformat() if span.end_time else None,
        "include_zones": list(chosen.include_zones),
        "exclude_zones": list(chosen.exclude_zones),
        "include_track_ids": list(chosen.include_track_ids),
        "exclude_track_ids": list(chosen.exclude_track_ids),
        "include_attributes": {term.key: list(term.values) for term in chosen.include_attributes},
        "exclude_attributes": {term.key: list(term.values) for term in chosen.exclude_attributes},
    }
    return {name: value for name, value in values.items() if value}
