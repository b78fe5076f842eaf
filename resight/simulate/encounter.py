"""What stays the same through one tracklet: way of walking past, companions, what is in front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resight.simulate.camera import Camera
from resight.simulate.randomness import Purpose, stream

__all__ = ["OBSTACLES", "Encounter", "encounter"]

OBSTACLES = ("pillar", "bin", "passer_by", "leaves")


@dataclass(frozen=True)
class Encounter:
    """One person walking past one camera once.

    Args:
        yaw, turn: Yaw at the start and its change a step, radians.
        phase, cadence: Gait phase at the start and its change a step, radians.
        standing: Whether they stand still.
        carry: Bend of the elbows, radians.
        size: Box height relative to the camera's usual one, and ``growth`` its change a step.
        place: Where in the scene, as shares across and down; ``drift`` is the change across a step.
        companion: Bystander who walks along, or -1; ``beside`` is where, in metres.
        obstacle: What stands in front, or an empty text; ``obstacle_at`` is where, share of width.
        passer_by: Bystander who is the obstacle when it is a person.
        brightness: Light of that moment (clouds, shade).
    """

    yaw: float
    turn: float
    phase: float
    cadence: float
    standing: bool
    carry: float
    size: float
    growth: float
    place: tuple[float, float]
    drift: float
    companion: int
    beside: float
    obstacle: str
    obstacle_at: float
    passer_by: int
    brightness: float


def encounter(seed: int, visit: int, camera: Camera, bystanders: int) -> Encounter:
    """Draw the encounter of tracklet ``visit`` at ``camera``."""
    rng = stream(seed, Purpose.TRACK, visit)
    way = camera.heading + (np.pi if rng.random() < 0.5 else 0.0)
    obstacle = ""
    if rng.random() < camera.clutter:
        obstacle = OBSTACLES[int(rng.integers(len(OBSTACLES)))]
    return Encounter(
        yaw=float(way + rng.normal(0.0, 0.5)),
        turn=float(rng.normal(0.0, 0.04)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        cadence=float(rng.uniform(0.7, 2.2)),
        standing=bool(rng.random() < 0.12),
        carry=float(rng.choice((0.0, 0.0, 0.3, 1.2))),
        size=float(np.exp(rng.normal(0.0, 0.16))),
        growth=float(rng.normal(0.0, 0.012)),
        place=(float(rng.random()), float(rng.uniform(0.2, 0.95))),
        drift=float(rng.normal(0.0, 0.02)),
        companion=int(rng.integers(bystanders)) if rng.random() < 0.08 else -1,
        beside=float(rng.choice((-1, 1)) * rng.uniform(0.35, 0.7)),
        obstacle=obstacle,
        obstacle_at=float(rng.choice((-1, 1)) * rng.uniform(0.1, 0.36)),
        passer_by=int(rng.integers(bystanders)),
        brightness=float(np.exp(rng.normal(0.0, 0.1))),
    )
