"""The JSON of searches."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from service.domain import query as domain
from service.transport.rest.filter_schemas import Filter, OwnCameraFields, Strict
from service.transport.rest.schemas import Crop

__all__ = ["Match", "SearchBody", "SearchResult"]


class Embedding(Strict):
    """A vector made by the gallery's live encoder."""

    values: list[float] = Field(max_length=65_536)
    model_version: str


class SearchBody(OwnCameraFields):
    """A query by stored crop or by embedding."""

    crop_id: str | None = None
    embedding: Embedding | None = None
    top_k: int | None = None
    min_score: float | None = None
    min_probability: float | None = None
    page_token: str = ""
    filter: Filter = Filter()

    def to_domain(
        self, gallery: str, *, image: bytes | None = None, deadline: float | None = None
    ) -> domain.SearchQuery:
        """Not yet checked."""
        embedding = self.embedding
        return domain.SearchQuery(
            gallery=gallery,
            image=image,
            crop_id=self.crop_id,
            embedding=None
            if embedding is None
            else domain.QueryEmbedding(
                values=embedding.values, model_version=embedding.model_version
            ),
            top_k=self.top_k,
            min_score=self.min_score,
            min_probability=self.min_probability,
            page_token=self.page_token,
            filter=self.filter.to_domain(),
            own_camera=self.own_camera_rule(),
            deadline=deadline,
        )


class Match(BaseModel):
    """A crop, its cosine similarity to the query, and the probability that goes with it."""

    crop: Crop
    score: float
    probability: float | None = Field(description="Absent without a calibration in the bundle.")

    @classmethod
    def of(cls, match: domain.Match) -> Self:
        """From the domain's value."""
        return cls(crop=Crop.of(match.crop), score=match.score, probability=match.probability)


class SearchResult(BaseModel):
    """Ranked matches, best first, and how they were found."""

    matches: list[Match]
    model_version: str
    mode: str = Field(description="`exact_scan` or `exact_gather`.")
    rows_scanned: int
    rows_total: int
    index_lag_seconds: float
    next_page_token: str

    @classmethod
    def of(cls, answer: domain.SearchAnswer) -> Self:
        """From the domain's value."""
        return cls(
            matches=[Match.of(match) for match in answer.matches],
            model_version=answer.model_version,
            mode=answer.mode.value,
            rows_scanned=answer.rows_scanned,
            rows_total=answer.rows_total,
            index_lag_seconds=answer.index_lag_seconds,
            next_page_token=answer.next_page_token,
        )
