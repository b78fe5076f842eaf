"""How a body in metres becomes pixels: the turn of the person and the pinhole of the camera.

Body axes: x to the person's left, y forward, z up, origin on the floor between the feet. The yaw
is 0 when the person faces the camera and grows as they turn to show their right side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["View"]


@dataclass(frozen=True)
class View:
    """One look at one person.

    Args:
        yaw: Turn of the person, radians.
        tilt: How far the camera looks down, radians.
        distance: Metres from the camera; small means strong perspective.
        scale: Pixels per metre at the person's origin.
        origin: Pixel (x, y) of the person's origin.
        light: Direction to the light in the camera's axes (right, towards the camera, up), unit.
        ambient: Share of the light that comes from everywhere, 0..1.
    """

    yaw: float
    tilt: float
    distance: float
    scale: float
    origin: tuple[float, float]
    light: tuple[float, float, float]
    ambient: float

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map body points (..., 3) in metres to (..., 3): pixel x, pixel y, nearness in metres."""
        body = np.asarray(points, dtype=np.float64)
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        across = body[..., 0] * cosine + body[..., 1] * sine
        toward = body[..., 1] * cosine - body[..., 0] * sine
        up = body[..., 2] * np.cos(self.tilt) - toward * np.sin(self.tilt)
        near = toward * np.cos(self.tilt) + body[..., 2] * np.sin(self.tilt)
        zoom = self.scale * self.distance / np.maximum(self.distance - near, 0.5)
        return np.stack((self.origin[0] + across * zoom, self.origin[1] - up * zoom, near), axis=-1)

    def facing(self, azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosine between an outward direction around the body (0 is forward) and the camera."""
        return np.cos(azimuth + self.yaw)

    def shade(self, azimuth: NDArray[np.float64], slope: float = 0.0) -> NDArray[np.float64]:
        """Brightness 0..~1.15 of a surface that looks to ``azimuth`` and up by ``slope``."""
        right = np.sin(azimuth + self.yaw)
        toward = np.cos(azimuth + self.yaw)
        lit = (
            np.sqrt(1.0 - slope * slope) * (right * self.light[0] + toward * self.light[1])
            + slope * self.light[2]
        )
        level = np.clip(0.25 + 0.75 * lit, 0.0, 1.0)
        shades: NDArray[np.float64] = self.ambient + (1.15 - self.ambient) * level
        return shades
