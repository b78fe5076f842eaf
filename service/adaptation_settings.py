"""Settings of adaptation, registered models, privacy and retention: sections of
``service.settings``.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from resight.errors import InvalidArgument
from service.domain.names import gallery_name

__all__ = ["ModelSettings", "NightlySettings", "PrivacySettings", "RetentionSettings"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NightlySettings(_Section):
    """Leases and records of nightly runs. A lease that is not extended is free after it expires,
    so its length is how long a dead night blocks the next one. A gallery in ``expected`` is missed
    by an alert when crops come and no night was ever started for it.
    """

    lease_seconds: float = Field(default=300.0, ge=1)
    max_lease_seconds: float = Field(default=3600.0, ge=1, le=86_400)
    max_figures_bytes: int = Field(default=1024 * 1024, ge=1024)
    max_report_crops: int = Field(default=10_000, ge=1, le=100_000)
    max_run_crops: int = Field(default=5_000_000, ge=1)
    stream_readers: int = Field(default=8, ge=1, le=256)
    expected: tuple[str, ...] = ()

    @field_validator("expected")
    @classmethod
    def _galleries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(gallery_name(name) for name in value)
        except InvalidArgument as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _default_allowed(self) -> Self:
        if self.lease_seconds > self.max_lease_seconds:
            raise ValueError("lease_seconds must not exceed max_lease_seconds")
        return self


class ModelSettings(_Section):
    """Bundles that are uploaded, and how a model becomes the one that answers. An upload may take
    its time at ``min_upload_bytes_per_second``, and is refused when it falls behind that for longer
    than anything is waited for.

    A shadow is filled in blocks of ``fill_block`` crops, working ``fill_share`` of the time.
    ``mirror_share`` of the searches are asked of it, too. With ``promotion`` = ``gate`` what the
    gate passed is staged and promoted without anybody, and rolled back within
    ``probation_seconds`` when, over ``min_judged`` observations, more than ``max_failed_share`` of
    the embeddings fail or the answers have less than ``min_overlap`` in common with the model
    before.
    """

    max_bundle_bytes: int = Field(default=1024**3, ge=1024)
    max_gate_bytes: int = Field(default=256 * 1024, ge=1024)
    max_uploads: int = Field(default=2, ge=1, le=64)
    min_upload_bytes_per_second: int = Field(default=64 * 1024, ge=1)
    keep_retired: bool = False
    fill_block: int = Field(default=64, ge=1, le=4096)
    fill_share: float = Field(default=0.5, gt=0, le=1)
    fill_lease_seconds: float = Field(default=60.0, ge=1)
    poll_seconds: float = Field(default=1.0, gt=0)
    removal_block: int = Field(default=2000, ge=1, le=10_000)
    verify_sample: int = Field(default=64, ge=1, le=10_000)
    mirror_share: float = Field(default=0.05, ge=0, le=1)
    mirror_queue: int = Field(default=64, ge=1, le=10_000)
    promotion: Literal["manual", "gate"] = "manual"
    probation_seconds: float = Field(default=1800.0, ge=0)
    min_judged: int = Field(default=50, ge=1)
    max_failed_share: float = Field(default=0.05, ge=0, le=1)
    min_overlap: float = Field(default=0.3, ge=0, le=1)


class PrivacySettings(_Section):
    """Without ``store_images`` a crop's image is embedded and forgotten: it cannot be got again,
    nights are refused, and the process cannot leave a core dump.
    """

    store_images: bool = True


class RetentionSettings(_Section):
    """Crops captured more than ``days`` ago are dropped: at start, then every
    ``interval_seconds``, ``batch_crops`` in one transaction. None keeps them for ever.
    """

    days: float | None = Field(default=None, gt=0, le=36_500)
    interval_seconds: float = Field(default=3600.0, gt=0)
    batch_crops: int = Field(default=1000, ge=1, le=100_000)
