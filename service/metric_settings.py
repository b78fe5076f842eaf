"""Settings of what the metrics show: a section of ``service.settings``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MetricSettings"]


class MetricSettings(BaseModel):
    """Metrics. The drift of cameras is measured every ``drift_seconds`` (0: never) between the
    first and the newest ``drift_crops`` crops of a camera, one of each track; with
    ``camera_labels`` the first ``max_camera_labels`` cameras have series of their own. Runs and
    the disk are looked at every ``refresh_seconds``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    camera_labels: bool = False
    max_camera_labels: int = Field(default=64, ge=1, le=10_000)
    drift_seconds: float = Field(default=300.0, ge=0)
    drift_crops: int = Field(default=64, ge=8, le=1024)
    refresh_seconds: float = Field(default=10.0, gt=0)
