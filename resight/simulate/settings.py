"""What can be asked of a simulation, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

from resight.errors import InvalidArgument

__all__ = ["MAX_CAMERAS", "MAX_CROPS", "MIN_CROPS_EACH", "SimulationSettings"]

MAX_CAMERAS = 999
MAX_CROPS = 20_000_000
MIN_CROPS_EACH = 4
"""Two visits of two crops: a query and, from another camera, something to find."""


@dataclass(frozen=True)
class SimulationSettings:
    """Size, seed and difficulty of a simulated site.

    Args:
        identities: People in all; those to train on and those to search for are disjoint.
        cameras: Cameras, at least 2.
        crops: Crops in all: train, query and gallery with its distractors.
        seed: Equal settings and seeds give equal bytes.
        train_share: Share of the identities that are trained on, 0 < share < 1.
        look_alikes: How many people share the colours of their clothes.
        camera_spread: How far the cameras' colours and sharpness lie apart; 0 makes them alike.
        distractor_share: Share of all crops that are bystanders or no person at all.

    Raises:
        InvalidArgument: A value is out of range, or there are too few crops for the identities.
    """

    identities: int = 100
    cameras: int = 6
    crops: int = 2400
    seed: int = 0
    train_share: float = 0.6
    look_alikes: int = 2
    camera_spread: float = 1.0
    distractor_share: float = 0.05

    def __post_init__(self) -> None:
        _within("identities", self.identities, 2, 1_000_000)
        _within("cameras", self.cameras, 2, MAX_CAMERAS)
        _within("crops", self.crops, 1, MAX_CROPS)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("look-alikes", self.look_alikes, 1, 1000)
        _within("camera-spread", self.camera_spread, 0.0, 2.0)
        _within("distractor-share", self.distractor_share, 0.0, 0.5)
        if not 0.0 < self.train_share < 1.0:
            raise InvalidArgument(
                f"--train-share {self.train_share} must lie between 0 and 1, both excluded",
                field="train-share",
            )
        needed = MIN_CROPS_EACH * self.identities
        if self.crops - self.distractors < needed:
            raise InvalidArgument(
                f"--crops {self.crops} is too few for {self.identities} identities: {needed} crops "
                f"besides the {self.distractors} distractors are the least; raise --crops or lower "
                "--identities",
                field="crops",
            )

    @property
    def distractors(self) -> int:
        """Crops of the gallery that show nobody of the query set."""
        return round(self.crops * self.distractor_share)

    @property
    def train_identities(self) -> int:
        """How many identities are trained on; at least 1, and 1 is left to search for."""
        return min(max(1, round(self.identities * self.train_share)), self.identities - 1)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidArgument(f"--{name} {value} must lie in {low} to {high}", field=name)
