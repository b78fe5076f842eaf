"""How much the gate looks at, and where it draws the line."""

from __future__ import annotations

from pydantic import Field

from adapt.training.section import Section

__all__ = ["GateSettings"]


class GateSettings(Section):
    """Settings of the gate."""

    sample: int = Field(default=3000, ge=200, le=100_000)
    seed: int = Field(default=1, ge=0, lt=2**31)
