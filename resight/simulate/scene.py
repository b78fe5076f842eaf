"""Backgrounds: one still scene a camera, from which every crop of that camera is cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from resight.simulate.palette import BAGS, TOPS, Rgb, pick, vary
from resight.simulate.randomness import Purpose, stream

__all__ = ["SCENE_KINDS", "Scene", "scene"]

SCENE_KINDS = ("street", "wall", "tiles", "grass", "plaza", "corridor")

_HAZE = 138.0

_FLOORS: dict[str, Rgb] = {
    "street": (112, 112, 114),
    "wall": (150, 146, 138),
    "tiles": (188, 182, 170),
    "grass": (112, 128, 92),
    "plaza": (170, 164, 154),
    "corridor": (148, 152, 156),
}
_WALLS: dict[str, Rgb] = {
    "street": (140, 134, 126),
    "wall": (142, 112, 100),
    "tiles": (206, 204, 196),
    "grass": (88, 104, 78),
    "plaza": (178, 186, 194),
    "corridor": (198, 194, 180),
}


class Scene:
    """The picture a camera sees when nobody is there; true colours, (H, W, 3) float32."""

    def __init__(self, picture: NDArray[np.float32], unit: int) -> None:
        self.picture = picture
        self.unit = unit

    def cut(self, x: float, y: float, height: int, width: int) -> NDArray[np.float32]:
        """Copy a window whose corner lies at the shares ``x`` and ``y`` of what is left over."""
        rows, columns = self.picture.shape[:2]
        top = int(np.clip(y, 0.0, 1.0) * max(0, rows - height))
        left = int(np.clip(x, 0.0, 1.0) * max(0, columns - width))
        return self.picture[top : top + height, left : left + width].copy()


def scene(seed: int, camera: int, kind: str, unit: int) -> Scene:
    """Draw the background of a camera.

    Args:
        seed: Seed of the simulation.
        camera: Camera number, so that two cameras of one kind differ.
        kind: One of ``SCENE_KINDS``.
        unit: Height of a person in pixels; the scene is 3 units high and 5 wide.
    """
    rng = stream(seed, Purpose.SCENE, camera)
    height, width = 3 * unit, 5 * unit
    horizon = int(height * rng.uniform(0.3, 0.5))
    image = Image.new("RGB", (width, height), _whole(vary(rng, _WALLS[kind], 14)))
    draw = ImageDraw.Draw(image)
    _wall(draw, rng, kind, width, horizon, unit)
    floor = vary(rng, _FLOORS[kind], 12)
    draw.rectangle((0, horizon, width, height), fill=_whole(floor))
    _floor(draw, rng, kind, floor, (width, height, horizon, unit))
    _clutter(draw, rng, width, horizon, unit)
    image = image.filter(ImageFilter.GaussianBlur(unit / 100))
    picture = np.asarray(image, dtype=np.float32)
    coarse = rng.normal(0.0, 6.0, size=(height // 8 + 1, width // 8 + 1)).astype(np.float32)
    patches = np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32
    )
    grain = rng.normal(0.0, 5.0 if kind == "grass" else 2.5, size=(height, width))
    # Air, distance and a shallow focus make backgrounds flatter than the people before them.
    flat = 0.65 * picture + 0.35 * _HAZE
    return Scene(flat + (patches + grain.astype(np.float32))[..., None], unit)


def _wall(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    kind: str,
    width: int,
    horizon: int,
    unit: int,
) -> None:
    if kind == "wall":
        step = max(3, unit // 16)
        for row, y in enumerate(range(0, horizon, step)):
            draw.line((0, y, width, y), fill=(172, 150, 136))
            for x in range((row % 2) * step, width, 2 * step):
                draw.line((x, y, x, y + step), fill=(172, 150, 136))
    elif kind == "grass":
        for _ in range(120):
            across, down = rng.uniform(0, width), rng.uniform(0, horizon)
            size = unit * rng.uniform(0.05, 0.25)
            ink = _whole(vary(rng, (84, 100, 74), 10))
            box = (across - size, down - size, across + size, down + size)
            draw.ellipse(box, fill=ink)
    else:
        panes: Rgb = (96, 108, 122) if kind in {"street", "plaza"} else (170, 150, 120)
        step = int(unit * rng.uniform(0.5, 0.9))
        for x in range(int(rng.uniform(0, step)), width, step):
            low = horizon if kind == "corridor" else int(horizon * 0.75)
            pane = (x, int(horizon * 0.15), x + int(step * 0.55), low)
            draw.rectangle(pane, fill=_whole(vary(rng, panes, 12)), outline=(80, 76, 72))


def _floor(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    kind: str,
    floor: Rgb,
    extent: tuple[int, int, int, int],
) -> None:
    width, height, horizon, unit = extent
    seam = _whole((floor[0] * 0.8, floor[1] * 0.8, floor[2] * 0.8))
    if kind in {"tiles", "plaza", "corridor"}:
        row, gap = float(horizon), unit * 0.1
        while row < height:
            draw.line((0, int(row), width, int(row)), fill=seam, width=max(1, unit // 80))
            row, gap = row + gap, gap * 1.25
        for share in np.linspace(-1.2, 2.2, 22):
            top = width * (0.5 + (share - 0.5) * 0.55)
            draw.line((int(top), horizon, int(width * share), height), fill=seam)
    elif kind == "street":
        paint = (214, 212, 204)
        slope = int(rng.uniform(-0.5, 0.5) * unit)
        for share in (0.25, 0.7):
            y = int(horizon + share * (height - horizon))
            draw.line((0, y, width, y + slope), fill=paint, width=max(2, unit // 24))
        draw.rectangle((0, horizon, width, horizon + unit // 7), fill=(156, 152, 146))


def _clutter(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: int, unit: int
) -> None:
    for _ in range(int(rng.integers(5, 12))):
        x, foot = rng.uniform(0, width), horizon + unit * rng.uniform(-0.1, 0.9)
        wide, tall = unit * rng.uniform(0.04, 0.5), unit * rng.uniform(0.15, 0.8)
        ink = _muted(vary(rng, pick(rng, BAGS if rng.random() < 0.5 else TOPS), 12))
        shape = rng.random()
        if shape < 0.35:
            draw.rectangle((x, foot - tall, x + wide, foot), fill=ink, outline=(40, 40, 40))
        elif shape < 0.6:
            draw.line((x, foot, x, foot - 2 * tall), fill=ink, width=max(2, unit // 25))
        elif shape < 0.8:
            draw.ellipse((x - wide, foot - wide, x + wide, foot + wide), fill=ink)
        else:
            draw.rounded_rectangle(
                (x, foot - unit * 0.35, x + unit * 0.9, foot), radius=unit // 10, fill=ink
            )


def _muted(colour: Rgb) -> tuple[int, int, int]:
    """Street furniture is duller than clothes, and farther from the camera's focus."""
    return _whole((64 + colour[0] * 0.5, 64 + colour[1] * 0.5, 62 + colour[2] * 0.5))


def _whole(colour: Rgb) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(value))) for value in colour)
    return (red, green, blue)
