"""Settings of the export: what goes into the bundle beside the encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapt.training.section import WORD_OFF, Section

__all__ = ["ExportSettings"]


class ExportSettings(Section):
    """What ``adapt.export.attachments`` may be told.

    Attributes:
        fp16: Whether to attach the fp16 graph; left out with a warning where it does not hold.
        int8: Whether to try explicit quantisation; left out with a warning where it ranks badly.
        crops: Crops of the run that attachments are fitted and checked on; 0 leaves synthetic
            inputs for fp16, and no calibration.
        min_overlap: Top-10 overlap that fp16 and INT8 must reach.
        min_correlation: Rank correlation that they must reach.
        calibration: Where pairs of one person come from: ``tracklets``, ``clusters`` of the last
            epoch, ``auto`` for tracklets where there are enough of them, or ``off``.
        calibration_form: A line in the log-odds, or steps that never fall.
        prior: Share of pairs of one person that probabilities assume; by default that of pairs of
            one cluster, or 0.01 without clusters.
        simultaneous: Seconds within which nobody gets from one camera to another.
        views_overlap: Whether one person may be in the view of two cameras at once.
    """

    fp16: bool = True
    int8: bool = False
    crops: int = Field(default=512, ge=0, le=100_000)
    min_overlap: float = Field(default=0.95, ge=0, le=1)
    min_correlation: float = Field(default=0.98, ge=-1, le=1)
    calibration: Annotated[Literal["auto", "tracklets", "clusters", "off"], WORD_OFF] = "auto"
    calibration_form: Literal["logistic", "isotonic"] = "logistic"
    prior: float | None = Field(default=None, gt=0, lt=1)
    simultaneous: float = Field(default=2.0, ge=0, le=3600)
    views_overlap: bool = False
