"""The JSON of a model's life: resight.v1 with its field names, times in RFC 3339."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from service.application.model_changes import Promoted
from service.domain.model import Model
from service.transport.rest.model_schemas import FillingAnswer, ModelAnswer

__all__ = [
    "Promote",
    "PromotedAnswer",
    "Retire",
    "Rollback",
    "RolledBackAnswer",
    "Stage",
    "StagedAnswer",
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stage(_Body):
    """What staging may do."""

    retire_previous: bool = False
    reason: str = ""


class Promote(_Body):
    """What a promotion may lack."""

    allow_missing: bool = False
    force: bool = False
    reason: str = ""


class Rollback(_Body):
    """Why, and which model is to be left; whichever answers when empty."""

    reason: str = ""
    model_version: str = ""


class Retire(_Body):
    """Why."""

    reason: str = ""


class StagedAnswer(BaseModel):
    """The shadow."""

    model: ModelAnswer
    filling: FillingAnswer | None
    retired_version: str


class PromotedAnswer(BaseModel):
    """What answers now."""

    model: ModelAnswer
    previous_version: str
    sampled_crops: int
    vectors: int
    unsearchable_crops: int
    dual_served_crops: int

    @classmethod
    def of(cls, promoted: Promoted, model: Model) -> Self:
        """From the application's value."""
        return cls(
            model=ModelAnswer.of(model),
            previous_version=promoted.previous_version,
            sampled_crops=promoted.checked.sampled,
            vectors=promoted.checked.vectors,
            unsearchable_crops=promoted.unsearchable,
            dual_served_crops=promoted.dual_served,
        )


class RolledBackAnswer(BaseModel):
    """What answers again."""

    model: ModelAnswer
    previous_version: str
