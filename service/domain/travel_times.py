"""Travel times that a gallery has taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.trajectory import TravelTime

__all__ = ["LearnedPair", "LearnedTravelTimes"]


@dataclass(frozen=True, slots=True)
class LearnedPair:
    """Two cameras between which people were matched; ``time`` is None where they were too few to
    say. Its seconds are below zero where both cameras see a person at once.
    """

    from_camera_id: str
    to_camera_id: str
    matches: int
    time: TravelTime | None


@dataclass(frozen=True, slots=True)
class LearnedTravelTimes:
    """What was learned, and from what.

    Args:
        pairs: Those with a match, by cameras.
        learned_at: When.
        position: Of the gallery's log.
        model_version: Encoder whose vectors were compared.
        crops, tracks: How many were compared.
        lowest_score: Of a match that counts.
        lowest_probability: What that score means by the calibration; None without one.
    """

    pairs: Sequence[LearnedPair]
    learned_at: datetime
    position: int
    model_version: str
    crops: int
    tracks: int
    lowest_score: float
    lowest_probability: float | None

    @property
    def table(self) -> Mapping[tuple[str, str], TravelTime]:
        """The known ones."""
        return {
            (pair.from_camera_id, pair.to_camera_id): pair.time
            for pair in self.pairs
            if pair.time is not None
        }
