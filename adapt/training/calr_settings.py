"""Settings of ``calr`` alone; the defaults are the published recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adapt.training.section import Section

__all__ = ["CalrSettings", "LocalClusterSettings"]


class LocalClusterSettings(Section):
    """Where a camera's dendrogram is cut.

    Attributes:
        mode: ``ratio``: ``value`` times as many clusters as crops. ``count``: ``value`` clusters
            (the labels released for Market-1501 have 600 a camera). ``distance``: every merge of
            at most ``value``, an average Jaccard distance.
        value: See ``mode``.
    """

    mode: Literal["ratio", "count", "distance"] = "ratio"
    value: float = Field(default=0.2, gt=0)

    @model_validator(mode="after")
    def _of_its_mode(self) -> Self:
        if self.mode == "count":
            if self.value < 2 or self.value % 1:
                raise ValueError(f"value={self.value:g}: mode=count takes a whole number from 2")
        elif self.value >= 1:
            raise ValueError(f"value={self.value:g}: mode={self.mode} takes a number below 1")
        return self


class CalrSettings(Section):
    """What ``adapt.methods.calr`` may be told.

    Attributes:
        intra_epochs: Of each camera's own model; 0 trains none, and the local clusters are those
            of the untouched encoder.
        intra_iterations: Steps of each of them.
        intra_p, intra_k: Local clusters a batch, crops of each.
        intra_k1, intra_k2: Of the Jaccard distance within a camera.
        local_clusters: Where its dendrogram is cut.
        clustering: Of all crops, over the cameras; ``infomap`` needs the extra of that name.
        neighbours: Nearest crops, itself included, that Infomap's links and the pivot scores have.
        min_cosine: Least similarity of those.
        min_size: Smallest cluster of Infomap; crops of smaller ones are outliers.
        refine: Whether global clusters are refined by the local ones.
        pivot: Which crop speaks for a global cluster: the last, in order, of those whose score is
            above the mean (as released), or the one of the best score.
        pace: Probability with which refinement drops a crop: always 1 (as released), or falling
            along the ``cosine`` that the released code has commented out.
        entropy_weights: Whether clusters count by the entropy of their cameras.
        entropy_epoch: First epoch, from 0, in which they do.
        entropy_floor: Least weight; a cluster of a single camera has an entropy of 0.
        camera_epochs: First epochs, so many, that have the camera alignment; 0 leaves it out.
        camera_weight: Weight of its loss.
        camera_loss: ``as_released`` applies softmax to the probabilities once more, which leaves
            little gradient; ``paper`` is the plain cross-entropy.
    """

    intra_epochs: int = Field(default=20, ge=0, le=10_000)
    intra_iterations: int = Field(default=100, ge=1, le=1_000_000)
    intra_p: int = Field(default=64, ge=2, le=4096)
    intra_k: int = Field(default=4, ge=1, le=256)
    intra_k1: int = Field(default=15, ge=2, le=1000)
    intra_k2: int = Field(default=4, ge=1, le=1000)
    local_clusters: LocalClusterSettings = LocalClusterSettings()
    clustering: Literal["dbscan", "infomap"] = "dbscan"
    neighbours: int = Field(default=15, ge=2, le=1000)
    min_cosine: float = Field(default=0.5, ge=0, lt=1)
    min_size: int = Field(default=5, ge=2, le=100_000)
    refine: bool = True
    pivot: Literal["first_above_mean_last", "best"] = "first_above_mean_last"
    pace: Literal["constant", "cosine"] = "constant"
    entropy_weights: bool = True
    entropy_epoch: int = Field(default=5, ge=0)
    entropy_floor: float = Field(default=1e-3, ge=1e-6, le=1)
    camera_epochs: int = Field(default=3, ge=0)
    camera_weight: float = Field(default=1.0, gt=0, le=100)
    camera_loss: Literal["paper", "as_released"] = "as_released"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.intra_k2 > self.intra_k1:
            raise ValueError(f"intra_k2={self.intra_k2} must not exceed intra_k1={self.intra_k1}")
        return self
