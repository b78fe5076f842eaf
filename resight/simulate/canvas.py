"""The drawing surface: polygons of a supersampled layer with premultiplied colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resight.simulate.palette import Rgb
from resight.simulate.view import View

__all__ = ["SUPERSAMPLING", "Canvas"]

SUPERSAMPLING = 2
_SLICES = 18
_EDGES = np.linspace(-np.pi, np.pi, _SLICES + 1)
_CENTRES = (_EDGES[:-1] + _EDGES[1:]) / 2

Painter = Callable[[float, float], Rgb]
"""Colour of a surface at (azimuth, fraction of the way up)."""


class Canvas:
    """A transparent layer of ``height`` x ``width`` pixels that bodies are drawn on."""

    def __init__(self, height: int, width: int, view: View) -> None:
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._image = Image.new("RGBA", size, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)
        self.view = view

    def layer(self) -> NDArray[np.float32]:
        """Return (height, width, 4) float32: premultiplied RGB 0..255 and coverage 0..1."""
        small = np.asarray(self._image.reduce(SUPERSAMPLING), dtype=np.float32)
        coverage = small[..., 3:] / 255.0
        return np.concatenate((small[..., :3] * coverage, coverage), axis=-1)

    def surface(
        self,
        rings: NDArray[np.float64],
        paint: Painter | Rgb,
        *,
        azimuths: tuple[float, float] | None = None,
        slope: float = 0.0,
    ) -> None:
        """Draw the visible part of a stack of horizontal ellipses.

        Args:
            rings: (R, 5) rows of z, half width, half depth, centre x, centre y; metres.
            paint: A colour, or the colour at (azimuth, fraction of the way up).
            azimuths: Draw only this interval of azimuths; all round when None.
            slope: Upward part of the surface normal, for the shading.
        """
        edges, centres = _EDGES, _CENTRES
        if azimuths is not None:
            count = max(2, round(_SLICES * (azimuths[1] - azimuths[0]) / (2 * np.pi)))
            edges = np.linspace(azimuths[0], azimuths[1], count + 1)
            centres = (edges[:-1] + edges[1:]) / 2
        x = rings[:, 3:4] + rings[:, 1:2] * np.sin(edges)
        y = rings[:, 4:5] + rings[:, 2:3] * np.cos(edges)
        z = np.broadcast_to(rings[:, 0:1], x.shape)
        pixels = self.view.project(np.stack((x, y, z), axis=-1))[..., :2] * SUPERSAMPLING
        ratio = rings[:, 1].mean() / max(rings[:, 2].mean(), 1e-6)
        normal = np.arctan2(np.sin(centres), np.cos(centres) * ratio)
        shades = self.view.shade(normal, slope)
        bottom, top = rings[0, 0], rings[-1, 0]
        middle = (rings[:-1, 0] + rings[1:, 0]) / 2
        fractions = (middle - bottom) / max(top - bottom, 1e-6)
        for column in np.flatnonzero(self.view.facing(normal) > -0.12):
            azimuth, shade = float(centres[column]), float(shades[column])
            colours = [
                paint(azimuth, float(fraction)) if callable(paint) else paint
                for fraction in fractions
            ]
            start = 0
            for row in range(1, len(colours) + 1):
                if row == len(colours) or colours[row] != colours[start]:
                    left = pixels[start : row + 1, column]
                    right = pixels[start : row + 1, column + 1][::-1]
                    outline = np.concatenate((left, right)).ravel().tolist()
                    self._draw.polygon(outline, fill=_ink(colours[start], shade))
                    start = row

    def limb(
        self, joints: NDArray[np.float64], radii: tuple[float, ...], colours: tuple[Rgb, ...]
    ) -> None:
        """Draw a chain of rounded segments.

        Args:
            joints: (J, 3) body points, metres.
            radii: J radii, metres.
            colours: J - 1 colours, one a segment.
        """
        pixels = self.view.project(joints) * SUPERSAMPLING
        zoom = self.view.scale * SUPERSAMPLING
        for index, colour in enumerate(colours):
            start, end = pixels[index, :2], pixels[index + 1, :2]
            wide, narrow = radii[index] * zoom, radii[index + 1] * zoom
            self._segment(start, end, wide, narrow, colour, self._side_shade(0.0))
            # A lighter core moved towards the light makes the limb round.
            shift = np.array((self.view.light[0], -0.2)) * 0.3
            core = self._side_shade(1.0)
            self._segment(
                start + shift * wide, end + shift * narrow, wide * 0.6, narrow * 0.6, colour, core
            )

    def blob(self, centre: NDArray[np.float64], radius: float, colour: Rgb) -> None:
        """Draw a shaded ball of ``radius`` metres."""
        x, y, _ = self.view.project(centre) * SUPERSAMPLING
        size = radius * self.view.scale * SUPERSAMPLING
        self._disc(float(x), float(y), size, _ink(colour, self._side_shade(0.5)))

    def line(self, points: NDArray[np.float64], width: float, colour: Rgb) -> None:
        """Draw a strap through body points (P, 3), ``width`` metres wide."""
        pixels = self.view.project(points)[:, :2] * SUPERSAMPLING
        thick = max(1, round(width * self.view.scale * SUPERSAMPLING))
        flat = [float(value) for value in pixels.reshape(-1)]
        self._draw.line(flat, fill=_ink(colour, self._side_shade(0.6)), width=thick, joint="curve")

    def _side_shade(self, lit: float) -> float:
        ambient = self.view.ambient
        return ambient + (1.1 - ambient) * (0.35 + 0.55 * lit)

    def _segment(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        wide: float,
        narrow: float,
        colour: Rgb,
        shade: float,
    ) -> None:
        ink = _ink(colour, shade)
        along = end - start
        length = float(np.hypot(along[0], along[1]))
        if length > 0.5:
            across = np.array((-along[1], along[0])) / length
            corners = (
                *(start + across * wide),
                *(end + across * narrow),
                *(end - across * narrow),
                *(start - across * wide),
            )
            self._draw.polygon([float(value) for value in corners], fill=ink)
        self._disc(float(start[0]), float(start[1]), wide, ink)
        self._disc(float(end[0]), float(end[1]), narrow, ink)

    def _disc(self, x: float, y: float, radius: float, ink: tuple[int, int, int, int]) -> None:
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _ink(colour: Rgb, shade: float) -> tuple[int, int, int, int]:
    red, green, blue = (min(255, max(0, int(value * shade))) for value in colour)
    return (red, green, blue, 255)
