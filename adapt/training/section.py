"""What every group of settings has in common: immutable, unknown keys refused, finite numbers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """Base of ``RunConfig`` and of the sections of single methods."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
