"""The JSON of searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Base64Bytes, BaseModel, Field

from service.domain import examples
from service.domain import query as domain
from service.transport.rest.filter_schemas import Filter, OwnCameraFields, Strict
from service.transport.rest.schemas import Crop

__all__ = ["Match", "SearchBody", "SearchResult"]


class Embedding(Strict):
    """A vector made by the gallery's live encoder."""

    values: list[float] = Field(max_length=65_536)
    model_version: str


class Example(Strict):
    """Exactly one of an image (base64), a stored crop and an embedding."""

    image: Base64Bytes | None = None
    crop_id: str | None = None
    embedding: Embedding | None = None
    weight: float | None = None

    def to_domain(self) -> examples.Example:
        """Not yet checked."""
        return examples.Example(
            image=self.image,
            crop_id=self.crop_id,
            embedding=_embedding(self.embedding),
            weight=self.weight,
        )


Examples = Annotated[tuple[Example, ...], Field(max_length=1000)]


class SearchBody(OwnCameraFields):
    """A query by stored crop, by embedding, or by several examples."""

    crop_id: str | None = None
    embedding: Embedding | None = None
    top_k: int | None = None
    min_score: float | None = None
    min_probability: float | None = None
    page_token: str = ""
    positives: Examples = ()
    negatives: Examples = ()
    fusion: Literal["mean", "max", "quality"] = "mean"
    filter: Filter = Filter()

    def to_domain(
        self,
        gallery: str,
        *,
        images: Sequence[bytes] = (),
        negative_images: Sequence[bytes] = (),
        deadline: float | None = None,
    ) -> domain.SearchQuery:
        """Not yet checked; the first image is the query."""
        more = [examples.Example(image=image) for image in images[1:]]
        unwanted = [examples.Example(image=image) for image in negative_images]
        return domain.SearchQuery(
            gallery=gallery,
            image=images[0] if images else None,
            crop_id=self.crop_id,
            embedding=_embedding(self.embedding),
            top_k=self.top_k,
            min_score=self.min_score,
            min_probability=self.min_probability,
            page_token=self.page_token,
            positives=[*more, *(item.to_domain() for item in self.positives)],
            negatives=[*unwanted, *(item.to_domain() for item in self.negatives)],
            fusion=examples.Fusion(self.fusion),
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


def _embedding(body: Embedding | None) -> domain.QueryEmbedding | None:
    if body is None:
        return None
    return domain.QueryEmbedding(values=body.values, model_version=body.model_version)
