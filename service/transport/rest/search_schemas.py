"""The JSON of searches."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, EncodedBytes, EncoderProtocol, Field
from pydantic_core import PydanticCustomError

from resight.errors import ResightError
from service.domain import examples
from service.domain import query as domain
from service.domain.groups import GroupBy
from service.domain.rerank import Rerank
from service.transport.rest.filter_schemas import MAX_LIST, Filter, OwnCameraFields, Strict
from service.transport.rest.schemas import Crop
from service.transport.search_metrics import counted
from service.transport.status import problem

__all__ = [
    "Match",
    "SearchBatchBody",
    "SearchBatchResult",
    "SearchBody",
    "SearchResult",
    "StrictBase64",
]


class Embedding(Strict):
    """A vector made by the gallery's live encoder."""

    values: list[float] = Field(max_length=65_536)
    model_version: str


class StrictBase64(EncoderProtocol):
    """Lines may be broken; any other foreign character would be passed over unseen elsewhere."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as error:
            raise PydanticCustomError("base64_decode", "Input should be base64") from error

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64"]:
        return "base64"


class Example(Strict):
    """Exactly one of an image (base64), a stored crop and an embedding."""

    image: Annotated[bytes, EncodedBytes(encoder=StrictBase64)] | None = None
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


class RerankBody(Strict):
    """k-reciprocal re-ranking of the best candidates; unset fields are as published."""

    candidates: int | None = None
    k1: int | None = None
    k2: int | None = None
    original_weight: float | None = None


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
    group_by: Literal["nothing", "camera", "track"] = "nothing"
    group_size: int | None = None
    rerank: RerankBody | None = None
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
            group_by=GroupBy(self.group_by),
            group_size=self.group_size,
            rerank=None if self.rerank is None else Rerank(**self.rerank.model_dump()),
            filter=self.filter.to_domain(),
            own_camera=self.own_camera_rule(),
            deadline=deadline,
        )


class Match(BaseModel):
    """A crop, its cosine similarity to the query, and the probability that goes with it."""

    crop: Crop
    score: float
    probability: float | None = Field(description="Absent without a calibration in the bundle.")
    rerank_distance: float | None
    model_version: str = Field(
        default="", description="Of this score, where an answer is of two models; else empty."
    )

    @classmethod
    def of(cls, match: domain.Match) -> Self:
        """From the domain's value."""
        return cls(
            crop=Crop.of(match.crop),
            score=match.score,
            probability=match.probability,
            rerank_distance=match.rerank_distance,
            model_version=match.model_version,
        )


class MatchGroup(BaseModel):
    """Matches of one camera, or of one track of one camera."""

    camera_id: str
    track_id: str
    matches: list[Match]

    @classmethod
    def of(cls, matches: Sequence[domain.Match], by: GroupBy) -> Self:
        """From the domain's values."""
        crop = matches[0].crop
        return cls(
            camera_id=crop.camera_id,
            track_id=crop.track_id if by is GroupBy.TRACK else "",
            matches=[Match.of(match) for match in matches],
        )


class SearchResult(BaseModel):
    """Ranked matches, best first, and how they were found."""

    matches: list[Match]
    model_version: str
    mode: str = Field(description="`exact_scan` or `exact_gather`.")
    rows_scanned: int
    rows_total: int
    index_lag_seconds: float
    next_page_token: str
    groups: list[MatchGroup]

    @classmethod
    def of(cls, answer: domain.SearchAnswer, by: GroupBy = GroupBy.NOTHING) -> Self:
        """From the domain's value."""
        return cls(
            matches=[Match.of(match) for match in answer.matches],
            model_version=answer.model_version,
            mode=answer.mode.value,
            rows_scanned=answer.rows_scanned,
            rows_total=answer.rows_total,
            index_lag_seconds=answer.index_lag_seconds,
            next_page_token=answer.next_page_token,
            groups=[MatchGroup.of(matches, by) for matches in answer.groups],
        )


class SearchBatchBody(Strict):
    """Several queries."""

    queries: Annotated[tuple[SearchBody, ...], Field(max_length=MAX_LIST)]


class BatchItem(BaseModel):
    """The answer to one query, or the problem that `/search` would have answered."""

    answer: SearchResult | None = None
    problem: dict[str, Any] | None = None


class SearchBatchResult(BaseModel):
    """One for each query, in their order."""

    results: list[BatchItem]

    @classmethod
    def of(
        cls,
        answers: Sequence[domain.SearchAnswer | ResightError],
        queries: Sequence[domain.SearchQuery],
        *,
        instance: str,
    ) -> Self:
        """From the domain's values."""
        results = []
        for answer, query in zip(answers, queries, strict=True):
            if isinstance(answer, ResightError):
                results.append(BatchItem(problem=problem(answer, instance=instance)[2]))
            else:
                counted(answer)
                results.append(BatchItem(answer=SearchResult.of(answer, query.group_by)))
        return cls(results=results)


def _embedding(body: Embedding | None) -> domain.QueryEmbedding | None:
    if body is None:
        return None
    return domain.QueryEmbedding(values=body.values, model_version=body.model_version)
