"""The colours people, clothes and bags come in, with rough frequencies.

Street clothes use few colours, most of them dark: that is what makes people look alike, so the
lists are short on purpose.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

__all__ = ["BAGS", "BOTTOMS", "HAIR", "SHOES", "SKIN", "TOPS", "Rgb", "pick", "vary"]

Rgb: TypeAlias = tuple[float, float, float]
"""Red, green, blue on the 0..255 scale."""

Palette: TypeAlias = tuple[tuple[float, Rgb], ...]
"""Relative frequency and colour."""

TOPS: Palette = (
    (5, (34, 34, 38)),  # black
    (4, (78, 80, 84)),  # dark grey
    (3, (150, 152, 154)),  # grey
    (4, (222, 222, 218)),  # white
    (4, (38, 48, 86)),  # navy
    (3, (62, 96, 158)),  # blue
    (2, (138, 172, 206)),  # light blue
    (3, (168, 38, 42)),  # red
    (1, (104, 32, 44)),  # burgundy
    (2, (52, 104, 68)),  # green
    (1, (96, 98, 58)),  # olive
    (2, (196, 176, 142)),  # beige
    (1, (116, 82, 56)),  # brown
    (1, (222, 184, 60)),  # yellow
    (2, (214, 140, 160)),  # pink
    (1, (106, 70, 128)),  # purple
)
BOTTOMS: Palette = (
    (5, (36, 36, 40)),  # black
    (5, (52, 66, 98)),  # dark jeans
    (4, (92, 116, 152)),  # jeans
    (2, (92, 94, 98)),  # grey
    (2, (164, 146, 112)),  # khaki
    (1, (94, 72, 54)),  # brown
    (1, (208, 202, 190)),  # off-white
    (1, (70, 78, 58)),  # olive
)
SHOES: Palette = (
    (4, (30, 28, 28)),
    (3, (214, 212, 208)),
    (2, (96, 66, 44)),
    (1, (120, 120, 124)),
    (1, (150, 44, 44)),
    (1, (46, 60, 110)),
)
BAGS: Palette = (
    (4, (32, 32, 34)),
    (2, (108, 74, 48)),
    (2, (46, 58, 100)),
    (2, (158, 42, 46)),
    (1, (70, 98, 70)),
    (1, (190, 170, 132)),
    (1, (212, 128, 48)),
    (1, (120, 122, 126)),
)
HAIR: Palette = (
    (5, (30, 24, 22)),
    (4, (62, 42, 30)),
    (2, (112, 80, 50)),
    (1, (186, 152, 98)),
    (1, (146, 142, 138)),
    (1, (122, 54, 34)),
)
SKIN: Palette = (
    (3, (232, 194, 168)),
    (3, (214, 170, 138)),
    (2, (180, 132, 98)),
    (2, (126, 86, 62)),
    (1, (84, 56, 42)),
)


def pick(rng: np.random.Generator, palette: Palette) -> Rgb:
    """Draw one colour by frequency."""
    weights = np.array([weight for weight, _ in palette], dtype=np.float64)
    return palette[int(rng.choice(len(palette), p=weights / weights.sum()))][1]


def vary(rng: np.random.Generator, colour: Rgb, amount: float) -> Rgb:
    """Shift lightness and, half as much, each channel by a normal of ``amount`` (0..255 scale)."""
    shift = rng.normal(0.0, amount) + rng.normal(0.0, amount / 2, size=3)
    red, green, blue = np.clip(np.asarray(colour) + shift, 4, 250)
    return (float(red), float(green), float(blue))
