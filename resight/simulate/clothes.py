"""What is painted on a torso: patterns, logos and open jackets, each with its side."""

from __future__ import annotations

import numpy as np

from resight.simulate.canvas import Painter
from resight.simulate.palette import Rgb
from resight.simulate.person import Person

__all__ = ["torso_painter"]


def torso_painter(person: Person) -> tuple[Painter, int]:
    """Return the colour of a torso at (azimuth, fraction of the way up) and the rows it needs.

    Azimuth 0 is the front, so that a logo, an open jacket or a print on the back is seen from
    one side only.
    """
    cloth, bands = _pattern(person)
    if person.top == "jacket_open":
        return _opened(cloth, person.inner, 0.42), max(bands, 5)
    if person.top in {"jacket_closed", "coat"}:
        return _opened(cloth, _darker(person.top_colour), 0.1), max(bands, 5)
    return cloth, max(bands, 5)


def _pattern(person: Person) -> tuple[Painter, int]:
    base, accent = person.top_colour, person.accent
    if person.pattern == "stripes":
        return (lambda _, up: accent if int(up * 11) % 2 else base), 11
    if person.pattern == "check":
        return (lambda az, up: _check(base, accent, az, up)), 10
    if person.pattern == "logo":
        return (lambda az, up: accent if abs(az) < 0.62 and 0.5 < up < 0.74 else base), 12
    if person.pattern == "back_print":
        return (lambda az, up: accent if abs(az) > np.pi - 0.85 and 0.36 < up < 0.76 else base), 12
    if person.pattern == "block":
        return (lambda _, up: accent if up > 0.55 else base), 10
    return (lambda _, __: base), 5


def _check(base: Rgb, accent: Rgb, azimuth: float, up: float) -> Rgb:
    crossings = int(up * 10) % 2 + int((azimuth + np.pi) * 10 / np.pi) % 2
    share = (0.0, 0.45, 1.0)[crossings]
    red, green, blue = (b + share * (a - b) for a, b in zip(accent, base, strict=True))
    return (red, green, blue)


def _opened(cloth: Painter, inner: Rgb, half: float) -> Painter:
    def paint(azimuth: float, up: float) -> Rgb:
        return inner if abs(azimuth) < half and up < 0.9 else cloth(azimuth, up)

    return paint


def _darker(colour: Rgb) -> Rgb:
    return (colour[0] * 0.6, colour[1] * 0.6, colour[2] * 0.6)
