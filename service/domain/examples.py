"""Images, stored crops and vectors that a search is made of, wanted ones and unwanted ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from resight.errors import InvalidArgument
from service.domain import names
from service.domain.query_embedding import QueryEmbedding

__all__ = ["CheckedExample", "Example", "Fusion", "checked_examples"]

MAX_WEIGHT = 1e6


class Fusion(Enum):
    """How several examples of one person become one ranking."""

    MEAN = "mean"
    MAX = "max"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Example:
    """Exactly one of ``image``, ``crop_id`` and ``embedding``; ``weight`` is 1 when None."""

    image: bytes | None = None
    crop_id: str | None = None
    embedding: QueryEmbedding | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class CheckedExample:
    """An example of exactly one kind.

    Args:
        example: It.
        crop_id: Its, read; None for an image or embedding.
        where: The field that it came in, empty for the query itself.
        weight: Above zero.
    """

    example: Example
    crop_id: UUID | None
    where: str
    weight: float

    def field(self, name: str) -> str:
        """The full name of one of its fields."""
        return f"{self.where}.{name}" if self.where else name


def checked_examples(
    query: Example, positives: Sequence[Example], negatives: Sequence[Example],
    *, fusion: Fusion, limit: int,
) -> tuple[list[CheckedExample], list[CheckedExample]]:  # fmt: skip
    """The wanted and the unwanted examples; the query, when there is one, is the first wanted.

    Raises:
        InvalidArgument: no example, too many, one of no kind or of several, or a bad weight.
    """
    count = len(positives) + len(negatives)
    if count > limit:
        field = "positives" if len(positives) >= len(negatives) else "negatives"
        raise InvalidArgument(
            f"positives and negatives are {count} examples; send at most {limit} "
            "(limits.max_examples)",
            field=field,
        )
    if negatives and not positives and not _given(query):
        raise InvalidArgument(
            "query: negatives alone say only whom it is not; send an image, crop_id, embedding or "
            "positives as well",
            field="query",
        )
    wanted = []
    if _given(query) or not positives:
        wanted.append(_checked(query, "", fusion))
    wanted += [_checked(item, f"positives[{n}]", fusion) for n, item in enumerate(positives)]
    unwanted = [_checked(item, f"negatives[{n}]", fusion) for n, item in enumerate(negatives)]
    return wanted, unwanted


def _checked(example: Example, where: str, fusion: Fusion) -> CheckedExample:
    given = _given(example)
    name = where or "query"
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise InvalidArgument(
            f"{name}: send exactly one of image, crop_id and embedding (found {found})", field=name
        )
    weight = example.weight
    field = f"{where}.weight" if where else "weight"
    if weight is not None and fusion is Fusion.MAX:
        raise InvalidArgument(f"{field} has no effect when fusion is MAX; remove it", field=field)
    if weight is not None and not (math.isfinite(weight) and 0 < weight <= MAX_WEIGHT):
        raise InvalidArgument(
            f"{field} {weight} must be above 0 and at most {MAX_WEIGHT:.0f}", field=field
        )
    crop_id = example.crop_id
    field = f"{where}.crop_id" if where else "crop_id"
    return CheckedExample(
        example,
        None if crop_id is None else names.crop_id(crop_id, field=field),
        where,
        1.0 if weight is None else weight,
    )


def _given(example: Example) -> list[str]:
    kinds = ("image", "crop_id", "embedding")
    return [name for name in kinds if getattr(example, name) is not None]
