"""Settings of replicas: a section of ``service.settings``."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ReplicaSettings"]


class ReplicaSettings(BaseModel):
    """Several processes on one PostgreSQL. Each is called ``name`` (its host's when None), says
    every ``heartbeat_seconds`` that it lives, and looks for changes of the others every
    ``poll_seconds``, sooner when it is told of one. One that could not say that it lives for
    ``expire_seconds`` answers no search until it has caught up, and is waited for no longer. A
    deletion waits ``erasure_wait_seconds`` for all who live. Images of no crop are removed at once
    by a process that is alone, else when they still belong to none after ``sweep_seconds``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str | None = Field(default=None, min_length=1, max_length=200)
    heartbeat_seconds: float = Field(default=1.0, gt=0, le=60)
    poll_seconds: float = Field(default=0.2, gt=0, le=60)
    expire_seconds: float = Field(default=10.0, gt=0, le=3600)
    erasure_wait_seconds: float = Field(default=5.0, ge=0, le=600)
    sweep_seconds: float = Field(default=600.0, ge=1)

    @model_validator(mode="after")
    def _outlives_lost_heartbeats(self) -> Self:
        if self.expire_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                f"expire_seconds={self.expire_seconds} is less than three times "
                f"heartbeat_seconds={self.heartbeat_seconds}: one late heartbeat would stop the "
                "searches; raise the first or lower the second"
            )
        return self
