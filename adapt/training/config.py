"""Settings of one adaptation run, validated; unknown keys are refused.

``docs/adapt.md`` has one line on each; the presets (``adapt.training.presets``) hold the values.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from adapt.clustering.radius import RADII
from adapt.export.settings import ExportSettings
from adapt.training.calr_settings import CalrSettings
from adapt.training.cap_settings import CapSettings
from adapt.training.pplr_settings import PplrSettings
from adapt.training.section import WORD_OFF, Section
from adapt.training.teacher_settings import TeacherSettings

__all__ = ["ClusterContrastSettings", "RunConfig", "SpclSettings"]


def _radius(value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        radius = float(str(value))
    except ValueError:
        radius = 0.0
    if not 0.0 < radius < 1.0:
        raise ValueError("give auto, or a number above 0 and below 1: a Jaccard distance")
    return radius


class ClusterContrastSettings(Section):
    """Settings of ``cluster-contrast`` alone."""

    memory_update: Literal["mean", "hard"] = "mean"


class SpclSettings(Section):
    """Settings of ``spcl`` alone."""

    eps_gap: float = Field(default=0.02, ge=0, lt=0.5)
    self_paced: bool = True
    draw: Literal["every", "clusters"] = "every"


class RunConfig(Section):
    """Everything that decides the outcome of a run, and how fast it is reached."""

    method: Literal["cluster-contrast", "spcl", "calr", "pplr", "cap", "bn-stats"] = (
        "cluster-contrast"
    )
    preset: Literal["published", "fast", "night"] = "fast"
    seed: int = Field(default=1, ge=0, lt=2**31)

    # Encoder and its input.
    backbone: str = "efficientnet_lite0"
    init: str | None = None
    pooling: Literal["avg", "gem"] | None = None
    neck: Literal["bn", "none"] | None = None
    height: int = Field(default=256, ge=16, le=1024)
    width: int = Field(default=128, ge=16, le=1024)
    resize_filter: Literal["bilinear", "bicubic"] = "bilinear"

    # Length of the run.
    epochs: int = Field(default=4, ge=0, le=10_000)
    iterations: int | None = Field(default=None, ge=1, le=1_000_000)
    passes: float = Field(default=1.0, gt=0, le=1000)
    min_iterations: int = Field(default=1, ge=1, le=1_000_000)
    max_iterations: int = Field(default=100, ge=1, le=1_000_000)

    # Batches.
    p: int = Field(default=16, ge=2, le=4096)
    k: int = Field(default=4, ge=1, le=256)
    ignore_cameras: bool = False
    camera_aware: bool = True
    flip: float = Field(default=0.5, ge=0, le=1)
    pad: int = Field(default=10, ge=0, le=256)
    erasing: float = Field(default=0.5, ge=0, le=1)
    erasing_fill: Literal["released", "mean"] = "released"

    # Optimiser.
    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=3.5e-4, gt=0, le=1)
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    schedule: Literal["step", "cosine", "constant"] = "step"
    step_epochs: int = Field(default=20, ge=1)
    step_factor: float = Field(default=0.1, gt=0, le=1)
    warmup_iterations: int = Field(default=0, ge=0)
    warmup_epochs: int = Field(default=0, ge=0)

    # Loss and memory.
    temperature: float = Field(default=0.05, gt=0, le=10)
    momentum: float = Field(default=0.1, ge=0, lt=1)
    cluster_contrast: ClusterContrastSettings = ClusterContrastSettings()
    spcl: SpclSettings = SpclSettings()
    calr: CalrSettings = CalrSettings()
    pplr: PplrSettings = PplrSettings()
    cap: CapSettings = CapSettings()

    # Pseudo-labels.
    features: Literal["re-extract", "memory"] = "re-extract"
    distance: Literal["jaccard", "ca-jaccard"] = "jaccard"
    eps: Annotated[float | Literal["auto"], PlainValidator(_radius)] = 0.6
    k1: int = Field(default=30, ge=2, le=1000)
    k2: int = Field(default=6, ge=1, le=1000)
    k1_intra: int = Field(default=5, ge=1, le=1000)
    k1_inter: int = Field(default=20, ge=1, le=1000)
    k2_intra: int = Field(default=2, ge=1, le=1001)
    k2_inter: int = Field(default=4, ge=0, le=1000)
    min_samples: int = Field(default=4, ge=2, le=1000)
    camera_centering: bool = False
    neighbours: Literal["auto", "exact", "approximate"] = "auto"
    approximate_above: int = Field(default=200_000, ge=0)
    neighbour_recall: float = Field(default=0.98, gt=0, le=1)
    tracklets: Annotated[Literal["off", "link", "separate"], WORD_OFF] = "off"
    apart_cameras: Literal["none", "all"] | tuple[tuple[str, str], ...] = "none"
    apart_seconds: float = Field(default=2.0, ge=0, le=86_400)
    track_gap_seconds: float = Field(default=300.0, gt=0, le=86_400)

    # Batch norm and averaging.
    bn_group: int = Field(default=0, ge=0)
    freeze_bn: bool = False
    bn_reestimate: int = Field(default=0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    teacher: TeacherSettings = TeacherSettings()

    # What goes into the bundle beside the encoder.
    export: ExportSettings = ExportSettings()

    # How it is computed.
    device: str = "auto"
    precision: Literal["fp32", "bf16", "amp"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    threads: int = Field(default=0, ge=0, le=1024)
    extraction: Literal["auto", "onnx", "torch"] = "auto"
    extraction_batch: int = Field(default=64, ge=1, le=4096)
    prefetch: int = Field(default=2, ge=0, le=64)
    rank_timeout: int = Field(default=120, ge=1, le=100_000)

    @property
    def twin_decay(self) -> float:
        """Decay of the averaged twin, which a teacher is; 0 = no twin."""
        return self.teacher.decay if self.teacher.weight else self.ema

    @model_validator(mode="after")
    def _one_twin(self) -> Self:
        if not self.teacher.weight:
            return self
        if self.ema:
            raise ValueError(
                "the teacher is the averaged twin: with teacher.weight above 0 set teacher.decay"
                " and leave ema at 0"
            )
        if self.method == "bn-stats":
            raise ValueError("teacher.weight has no effect with method bn-stats, which learns not")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        batch = self.p * self.k
        if self.bn_group and (self.bn_group < 2 or batch % self.bn_group):
            raise ValueError(
                f"bn_group={self.bn_group} must be at least 2 and divide the batch of"
                f" p x k = {batch}; 0 uses the whole batch"
            )
        if self.k2 > self.k1:
            raise ValueError(f"k2={self.k2} must not exceed k1={self.k1}")
        if self.k2_intra > self.k1_intra + 1 or self.k2_inter > self.k1_inter:
            raise ValueError(
                f"k2_intra={self.k2_intra} must not exceed k1_intra + 1 ({self.k1_intra + 1}),"
                f" nor k2_inter={self.k2_inter} k1_inter={self.k1_inter}"
            )
        if self.distance == "ca-jaccard" and self.ignore_cameras:
            raise ValueError("distance=ca-jaccard needs the cameras that ignore_cameras hides")
        if self.tracklets == "separate" and self.ignore_cameras:
            raise ValueError(
                "tracklets=separate needs the cameras that ignore_cameras hides; use link"
            )
        if self.apart_cameras != "none" and self.tracklets != "separate":
            raise ValueError("apart_cameras has no effect without tracklets=separate")
        if self.tracklets != "off" and self.method == "calr" and self.calr.clustering == "infomap":
            raise ValueError("tracklets has no effect with calr.clustering=infomap; use dbscan")
        if self.method == "calr" and self.ignore_cameras:
            raise ValueError(
                "method=calr needs the cameras that ignore_cameras hides; use another method"
            )
        calr = self.calr
        images = calr.intra_p * calr.intra_k
        trains_cameras = self.method == "calr" and calr.refine and calr.intra_epochs
        if trains_cameras and self.bn_group and images % self.bn_group:
            raise ValueError(
                f"bn_group={self.bn_group} must divide the batch of each camera's stage too,"
                f" calr.intra_p x calr.intra_k = {images}; 0 uses the whole batch"
            )
        if self.min_iterations > self.max_iterations:
            raise ValueError("min_iterations must not exceed max_iterations")
        gap = self.spcl.eps_gap
        if self.method == "spcl" and self.eps == "auto" and gap >= RADII[0]:
            raise ValueError(f"spcl.eps_gap={gap} must be below {RADII[0]} with eps=auto")
        if self.method == "spcl" and self.eps != "auto" and not gap < self.eps < 1 - gap:
            raise ValueError(f"eps={self.eps} must lie between spcl.eps_gap={gap} and 1 less it")
        if self.features == "memory" and self.method != "spcl":
            raise ValueError(
                f"features=memory needs a memory of every crop, which {self.method} has not;"
                " use features=re-extract"
            )
        return self
