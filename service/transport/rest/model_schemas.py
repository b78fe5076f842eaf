"""The JSON of registered encoders: resight.v1 with its field names, times in RFC 3339."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.domain.filling import Filling
from service.domain.model import GateOutcome, GateVerdict, Model

__all__ = ["FillingAnswer", "Gate", "ModelAnswer", "ModelPage"]


class Gate(BaseModel):
    """What the label-free gate said of a candidate."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    outcome: str = Field(default="unknown", description="`passed`, `refused` or `unknown`.")
    score: float = 0.0
    reasons: list[str] = []
    report: dict[str, Any] | None = None

    @classmethod
    def of(cls, gate: GateVerdict) -> Self:
        """From the domain's value."""
        return cls(
            outcome=gate.outcome.value,
            score=gate.score,
            reasons=list(gate.reasons),
            report=None if gate.report is None else dict(gate.report),
        )

    def to_domain(self) -> GateVerdict:
        """Not yet checked; ValueError for an unknown outcome."""
        return GateVerdict(
            GateOutcome(self.outcome), self.score, tuple(self.reasons), self.report or {}
        )


class FailedCrop(BaseModel):
    """A crop that has no vector of the model."""

    crop_id: str
    reason: str


class FillingAnswer(BaseModel):
    """How a shadow gets vectors of the crops that were there before it."""

    source: str
    state: str
    total_crops: int
    done_crops: int
    failed_crops: int
    failures: list[FailedCrop]
    start_time: datetime
    update_time: datetime
    complete_time: datetime | None

    @classmethod
    def of(cls, filling: Filling) -> Self:
        """From the domain's value."""
        return cls(
            source=filling.source.value,
            state=filling.state.value,
            total_crops=filling.total,
            done_crops=filling.done,
            failed_crops=filling.failed,
            failures=[
                FailedCrop(crop_id=str(item.crop_id), reason=item.reason.value)
                for item in filling.failures
            ],
            start_time=filling.start_time,
            update_time=filling.update_time,
            complete_time=filling.complete_time,
        )


class ModelAnswer(BaseModel):
    """An encoder that the gallery knows."""

    model_version: str
    state: str
    dimension: int
    create_time: datetime
    parent_version: str
    method: str
    run_id: str
    gate: Gate
    bundle_sha256: str = Field(description="Lower-case hex; empty when no archive is stored.")
    bundle_size_bytes: int
    manifest: dict[str, Any] | None = Field(default=None, description="Left out of listings.")
    filling: FillingAnswer | None = Field(
        default=None,
        description="Of a model that was staged; left out of listings and for limited callers.",
    )

    @classmethod
    def of(cls, model: Model, manifest: dict[str, Any] | None = None) -> Self:
        """From the domain's value."""
        return cls(
            model_version=model.model_version,
            state=model.state.value,
            dimension=model.dimension,
            create_time=model.create_time,
            parent_version=model.parent_version,
            method=model.method,
            run_id=str(model.run_id or ""),
            gate=Gate.of(model.gate),
            bundle_sha256=model.bundle_sha256.hex(),
            bundle_size_bytes=model.bundle_size_bytes,
            manifest=manifest,
        )


class ModelPage(BaseModel):
    """A page of models, newest first."""

    models: list[ModelAnswer]
    next_page_token: str
