"""What every group of settings has in common: immutable, unknown keys refused, finite numbers."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = ["WORD_OFF", "Section"]

# YAML reads the bare word ``off`` as false.
WORD_OFF = BeforeValidator(lambda value: "off" if value is False else value)


class Section(BaseModel):
    """Base of ``RunConfig`` and of the sections of single methods."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
