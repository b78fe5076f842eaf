"""Settings of ``cap`` alone; the defaults are the published recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.training.section import Section

__all__ = ["CapSettings"]


class CapSettings(Section):
    """What ``adapt.methods.cap`` may be told.

    Attributes:
        intra_weight: Weight of the intra-camera loss.
        inter_weight: Weight of the inter-camera loss.
        inter_epoch: First epoch, from 0, that has the inter-camera loss.
        hard_negatives: Proxies of other clusters in the inter-camera loss.
        draw: What a batch is made of: crops by ``proxy``, or by ``cluster``.
    """

    intra_weight: float = Field(default=1.0, ge=0, le=100)
    inter_weight: float = Field(default=0.5, ge=0, le=100)
    inter_epoch: int = Field(default=5, ge=0)
    hard_negatives: int = Field(default=50, ge=1, le=100_000)
    draw: Literal["proxy", "cluster"] = "proxy"

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.intra_weight and (not self.inter_weight or self.inter_epoch):
            raise ValueError(
                "intra_weight=0 leaves no loss: set inter_weight above 0 and inter_epoch to 0"
            )
        return self
