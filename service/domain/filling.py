"""How a shadow gets vectors of the crops that were there before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

__all__ = ["FailedCrop", "FailureReason", "Filling", "FillingSource", "FillingState"]


class FillingSource(Enum):
    """What the vectors are made of."""

    # The stored images, embedded anew.
    IMAGES = "images"
    # The live model's vectors, carried over by the bundle's map.
    MAP = "map"
    # Nothing: older crops are searched with the model before until they expire.
    NONE = "none"


class FillingState(Enum):
    """Whether it goes on."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"


class FailureReason(Enum):
    """Why a crop has no vector of the shadow."""

    IMAGE_LOST = "IMAGE_LOST"
    UNDECODABLE = "UNDECODABLE"
    ENCODER_FAILED = "ENCODER_FAILED"
    NO_OLD_VECTOR = "NO_OLD_VECTOR"


@dataclass(frozen=True, slots=True)
class FailedCrop:
    """A crop without a vector of the model."""

    crop_id: UUID
    reason: FailureReason


@dataclass(frozen=True, slots=True)
class Filling:
    """Progress.

    Args:
        source: What the vectors are made of.
        state: Whether it goes on; when complete, every crop was looked at.
        total: Crops there were when the model was staged.
        done: Of these, crops that were given a vector.
        failed: Crops that could not be given one and are still in the gallery.
        failures: The first of them.
        start_time: When the model was staged.
        update_time: When something last happened.
        complete_time: When every crop had been looked at; None before.
    """

    source: FillingSource
    state: FillingState
    total: int
    done: int
    failed: int
    failures: Sequence[FailedCrop]
    start_time: datetime
    update_time: datetime
    complete_time: datetime | None
