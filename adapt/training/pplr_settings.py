"""Settings of ``pplr`` alone; the defaults are the published recipe."""

from __future__ import annotations

from pydantic import Field

from adapt.training.section import Section

__all__ = ["PplrSettings"]


class PplrSettings(Section):
    """What ``adapt.methods.pplr`` may be told.

    Attributes:
        parts: Horizontal stripes; 0 trains the global feature alone.
        agreement_neighbours: Nearest crops that the cross-agreement compares, itself left out.
        aals: Agreement-aware label smoothing of the parts; else plain smoothing in every epoch.
        aals_epoch: First epoch, from 0, that has it.
        smoothing: Of the plain smoothing.
        pglr: Part-guided label refinement of the global feature; else its one-hot labels.
        beta: Share of the one-hot label in the refined one.
        triplet: The soft triplet loss.
        lambda_camera: Weight of the camera-proxy losses; 0 leaves them out.
        hard_negatives: Proxies of other clusters in them.
        logit_scale: Classifiers score by cosine times this; 0 by the plain product, as published,
            where the feature's length decides how sharp the softmax is.
    """

    parts: int = Field(default=3, ge=0, le=16)
    agreement_neighbours: int = Field(default=20, ge=1, le=1000)
    aals: bool = True
    aals_epoch: int = Field(default=5, ge=0)
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    pglr: bool = True
    beta: float = Field(default=0.5, ge=0, le=1)
    triplet: bool = True
    lambda_camera: float = Field(default=0.5, ge=0, le=100)
    hard_negatives: int = Field(default=50, ge=1, le=100_000)
    logit_scale: float = Field(default=0.0, ge=0, le=1000)
