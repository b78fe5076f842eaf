"""Where a walking person's joints and outlines are, by gait phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.simulate.person import Person
from resight.simulate.view import View

__all__ = ["CHEST", "HEAD", "HIP", "NECK", "SHOULDER", "WAIST", "Pose", "Skeleton"]


@dataclass(frozen=True)
class Pose:
    """Where a person is in their stride.

    Args:
        phase: Gait phase in radians; a full stride is 2 pi.
        standing: Whether they stand still (arms and legs hardly move).
        carry: Bend of the elbows in radians, 0 for hanging arms.
    """

    phase: float
    standing: bool
    carry: float


# Heights of landmarks as shares of the body height.
HIP, WAIST, CHEST, SHOULDER, NECK, HEAD = 0.49, 0.60, 0.71, 0.815, 0.855, 0.925
THIGH, SHANK, ANKLE = 0.235, 0.215, 0.04
UPPER_ARM, FOREARM = 0.175, 0.16


class Skeleton:
    """The geometry of one person in one pose; points and lengths in metres.

    Args:
        view: Of the camera, which says what is near.
    """

    def __init__(self, person: Person, pose: Pose, view: View) -> None:
        self.person = person
        self.pose = pose
        self.view = view
        self.size = person.height
        self.padding = 1.14 if person.top in {"jacket_open", "jacket_closed", "coat"} else 1.0
        self.back_shows = np.cos(view.yaw) < 0.0
        swing = 0.06 if pose.standing else person.stride
        self.swing = swing
        self.bob = 0.012 * self.size * np.cos(2 * pose.phase) * (0.0 if pose.standing else 1.0)

    def nearness(self, point: NDArray[np.float64]) -> float:
        """How near a point is to the camera; parts are drawn from far to near."""
        flat = np.array((point[0], point[1], 0.0))
        return float(self.view.project(flat)[2])

    def leg_joints(self, side: int) -> NDArray[np.float64]:
        """Hip, knee, ankle and toe (4, 3)."""
        phase = self.pose.phase + (0.0 if side > 0 else np.pi)
        thigh = self.swing * np.sin(phase)
        bend = (0.1 + 1.1 * self.swing * max(0.0, np.cos(phase + 0.5))) * (
            0.3 if self.pose.standing else 1.0
        )
        x = side * self.person.hips * 0.5
        hip = np.array((x, 0.0, HIP * self.size + self.bob))
        knee = hip + THIGH * self.size * np.array((0.0, np.sin(thigh), -np.cos(thigh)))
        shank = thigh - bend
        ankle = knee + SHANK * self.size * np.array((0.0, np.sin(shank), -np.cos(shank)))
        toe = ankle + self.size * np.array((side * 0.012, 0.095, -0.022))
        return np.stack((hip, knee, ankle, toe))

    def arm_joints(self, side: int) -> NDArray[np.float64]:
        """Shoulder, elbow and hand (3, 3)."""
        phase = self.pose.phase + (np.pi if side > 0 else 0.0)
        angle = self.person.arm_swing * np.sin(phase) * (0.15 if self.pose.standing else 1.0)
        x = side * (self.person.shoulders * self.padding - 0.02)
        lean = self.person.lean * 0.3 * self.size
        shoulder = np.array((x, lean, SHOULDER * self.size + self.bob - 0.02))
        out = 0.10 * self.person.girth
        upper = np.array((side * out, np.sin(angle), -np.cos(angle)))
        elbow = shoulder + UPPER_ARM * self.size * upper
        bent = angle + 0.25 + self.pose.carry
        lower = np.array((side * out * 0.3, np.sin(bent), -np.cos(bent)))
        return np.stack((shoulder, elbow, elbow + FOREARM * self.size * lower))

    def rings(self, rows: tuple[tuple[float, float, float], ...]) -> NDArray[np.float64]:
        """(R, 5) rings from (share of the height, half width m, half depth m), leaning."""
        table = np.array(rows, dtype=np.float64)
        z = table[:, 0] * self.size + self.bob
        above = np.clip(table[:, 0] - HIP, 0.0, None)
        lean = self.person.lean * above * self.size
        return np.column_stack((z, table[:, 1], table[:, 2], np.zeros_like(z), lean))
