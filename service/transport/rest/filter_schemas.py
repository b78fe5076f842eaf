"""The JSON of filters and of the own-camera switch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from resight.attribute_terms import parse_attribute_terms
from service.domain import crop as domain
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting

__all__ = ["Filter", "OwnCameraFields", "Range", "Strict", "Term"]

# Longer lists are refused before their items are read, whatever the limits say.
MAX_LIST = 20_000


class Strict(BaseModel):
    """An object without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Range(Strict):
    """Half-open: ``start_time <= t < end_time``."""

    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class Term(Strict):
    """A condition on one attribute: one of these values, or any when there are none."""

    key: str
    values: list[str] = Field(default=[], max_length=MAX_LIST)

    @classmethod
    def parsed(cls, texts: Iterable[str], *, field: str) -> list[Self]:
        """Terms written ``key=value``, or ``key`` for any value.

        Raises:
            InvalidArgument: no key, or a key with and without a value.
        """
        found = parse_attribute_terms(texts, field=field)
        return [cls(key=key, values=values) for key, values in found.items()]


Texts = Annotated[list[str], Field(max_length=MAX_LIST)]
Terms = Annotated[list[Term], Field(max_length=MAX_LIST)]


class Filter(Strict):
    """Which crops may match; conditions are combined with AND."""

    include_camera_ids: Texts = []
    exclude_camera_ids: Texts = []
    capture_range: Range = Range()
    include_zones: Texts = []
    exclude_zones: Texts = []
    include_track_ids: Texts = []
    exclude_track_ids: Texts = []
    include_attributes: Terms = []
    exclude_attributes: Terms = []

    def to_domain(self) -> domain.CropFilter:
        """Not yet checked."""
        return domain.CropFilter(
            include_camera_ids=tuple(self.include_camera_ids),
            exclude_camera_ids=tuple(self.exclude_camera_ids),
            capture_range=domain.TimeRange(
                self.capture_range.start_time, self.capture_range.end_time
            ),
            include_zones=self.include_zones,
            exclude_zones=self.exclude_zones,
            include_track_ids=self.include_track_ids,
            exclude_track_ids=self.exclude_track_ids,
            include_attributes=_domain_terms(self.include_attributes),
            exclude_attributes=_domain_terms(self.exclude_attributes),
        )


def _domain_terms(terms: list[Term]) -> list[domain.AttributeTerm]:
    return [domain.AttributeTerm(term.key, term.values) for term in terms]


class OwnCameraFields(Strict):
    """Whether crops of the query's own camera may match, and where and when the query was seen."""

    own_camera: Literal["any", "exclude", "exclude_within"] = "any"
    own_camera_window_seconds: float | None = Field(default=None, gt=0, le=4e9)
    query_camera_id: str = ""
    query_capture_time: AwareDatetime | None = None

    def own_camera_rule(self) -> OwnCameraRule:
        """Not yet checked."""
        window = self.own_camera_window_seconds
        return OwnCameraRule(
            OwnCamera(self.own_camera),
            None if window is None else timedelta(seconds=window),
            Sighting(self.query_camera_id, self.query_capture_time),
        )
