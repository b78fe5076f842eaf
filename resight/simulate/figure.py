"""A walking figure: body parts drawn from far to near."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from resight.simulate.canvas import Canvas, Painter
from resight.simulate.clothes import torso_painter
from resight.simulate.palette import Rgb
from resight.simulate.person import Person
from resight.simulate.skeleton import CHEST, HEAD, HIP, NECK, SHOULDER, WAIST, Pose, Skeleton

__all__ = ["draw_person"]


_HANGING_TOPS = {"tee": 0.52, "long_sleeve": 0.52, "jacket_open": 0.48, "jacket_closed": 0.49}
_HEMS = {"short_skirt": 0.36, "long_skirt": 0.13}


def draw_person(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Draw a person onto the canvas, at the canvas's view."""
    parts: list[tuple[float, Callable[[], None]]] = []
    body = _Body(canvas, person, pose)
    for side in (-1, 1):
        leg, arm = body.leg_joints(side), body.arm_joints(side)
        parts.append((-10 + body.nearness(leg[1]), partial(body.leg, leg)))
        parts.append((3 * body.nearness(arm[0]), partial(body.arm, arm, side)))
    parts.append((-5.0, body.lower))
    parts.append((0.0, body.torso))
    parts.append((0.5, body.head))
    if person.hair in {"long", "ponytail"}:
        parts.append((0.51 if body.back_shows else -0.01, body.hair_back))
    if person.bag == "backpack":
        parts.append((0.45 if body.back_shows else -0.2, body.backpack))
        if not body.back_shows:
            parts.append((0.02, body.backpack_straps))
    elif person.bag == "shoulder":
        centre = np.array((person.bag_side * 0.2, -0.02, HIP * person.height))
        parts.append((3 * body.nearness(centre) + 0.03, body.shoulder_bag))
    for _, draw in sorted(parts, key=lambda part: part[0]):
        draw()


class _Body(Skeleton):
    """The parts of one person in one pose on one canvas."""

    def __init__(self, canvas: Canvas, person: Person, pose: Pose) -> None:
        super().__init__(person, pose, canvas.view)
        self.canvas = canvas

    def leg(self, joints: NDArray[np.float64]) -> None:
        person, girth = self.person, self.person.girth
        bare = person.bottom in {"shorts", "short_skirt", "long_skirt"}
        shank: Rgb = (
            person.skin if bare or person.bottom == "three_quarter" else person.bottom_colour
        )
        thigh: Rgb = person.skin if bare and person.bottom != "shorts" else person.bottom_colour
        cloth = 0.0 if bare else 0.012
        radii = (0.088 * girth, 0.058 * girth + cloth, 0.036 * girth + cloth)
        self.canvas.limb(joints[2:], (0.045, 0.036), (person.shoes,))
        if person.bottom == "three_quarter":
            middle = joints[1] + 0.45 * (joints[2] - joints[1])
            chain = np.stack((joints[1], middle, joints[2]))
            self.canvas.limb(chain[1:], (0.05 * girth, 0.036 * girth), (shank,))
            self.canvas.limb(chain[:2], (0.064 * girth, 0.06 * girth), (thigh,))
        else:
            self.canvas.limb(joints[1:3], radii[1:], (shank,))
        self.canvas.limb(joints[:2], radii[:2], (thigh,))

    def arm(self, joints: NDArray[np.float64], side: int) -> None:
        person = self.person
        sleeve = person.accent if person.pattern == "two_tone" else person.top_colour
        fore = person.skin if person.short_sleeves else sleeve
        thick = 0.048 * (0.6 + 0.4 * person.girth) * self.padding
        self.canvas.blob(joints[2], 0.042, person.skin)
        self.canvas.limb(joints[1:], (thick * 0.86, thick * 0.68), (fore,))
        self.canvas.limb(joints[:2], (thick * 1.25, thick), (sleeve,))
        if side == person.bag_side and person.bag in {"handbag", "tote"}:
            self.hand_bag(joints[2])

    def lower(self) -> None:
        """Pelvis, skirt and the skirts of a coat."""
        person, size = self.person, self.size
        wide, deep = person.hips * person.girth, 0.115 * person.girth
        pelvis = self.rings(((HIP - 0.045, wide * 0.94, deep * 0.9), (WAIST, wide * 0.9, deep)))
        self.canvas.surface(pelvis, person.bottom_colour)
        hem = _HEMS.get(person.bottom)
        if hem is not None:
            flare = 1.3 if person.bottom == "short_skirt" else 1.2
            sway = 0.02 * np.sin(self.pose.phase)
            rows = ((hem, wide * flare, deep * flare + 0.03), (HIP, wide * 1.04, deep * 1.1))
            skirt = self.rings((*rows, (WAIST, wide * 0.88, deep)))
            skirt[0, 4] += sway * size
            self.canvas.surface(skirt, person.bottom_colour, slope=0.1)
        elif person.bottom == "shorts":
            for side in (-1, 1):
                joints = self.leg_joints(side)
                self.canvas.limb(
                    np.stack((joints[0], joints[1])),
                    (0.1 * person.girth, 0.085 * person.girth),
                    (person.bottom_colour,),
                )

    def torso(self) -> None:
        person = self.person
        pad, girth = self.padding, person.girth
        hem = 0.33 if person.top == "coat" else _HANGING_TOPS[person.top]
        waist = (person.shoulders * 0.5 + person.hips * 0.42) * girth * pad
        hip = max(person.hips * girth * pad * 1.02, waist)
        depth = 0.118 * girth * pad
        outline = (
            (hem, hip * (1.12 if hem < 0.4 else 1.0), depth * 1.05),
            (WAIST, waist, depth * 0.98),
            (CHEST, person.shoulders * pad * (0.55 + 0.42 * girth), depth * 1.04),
            (SHOULDER - 0.02, person.shoulders * pad * 0.98, depth * 0.9),
            (SHOULDER + 0.015, person.shoulders * pad * 0.72, depth * 0.72),
            (NECK, 0.065, 0.062),
        )
        painter, bands = torso_painter(person)
        rings = self.rings(outline)
        self.canvas.surface(_subdivide(rings, bands), painter, slope=0.12)
        neck = self.rings(((NECK - 0.012, 0.058, 0.056), (NECK + 0.03, 0.052, 0.055)))
        self.canvas.surface(neck, person.skin)

    def head(self) -> None:
        person, size = self.person, self.size
        angles = np.linspace(-1.35, 1.45, 9)
        centre, tall = HEAD, 0.068
        rows = [
            (centre + tall * np.sin(a), 0.078 * np.cos(a) + 0.004, 0.096 * np.cos(a) + 0.004)
            for a in angles
        ]
        rings = self.rings(tuple(rows))
        rings[:, 4] += 0.015 * size
        painter = _head_painter(person)
        grow = {"hood": 1.22, "bob": 1.12, "long": 1.1, "cap": 1.05}.get(person.hair, 1.0)
        rings[3:, 1:3] *= grow
        if person.hair in {"bob", "hood", "long"}:
            rings[:3, 1:3] *= grow
        self.canvas.surface(rings, painter, slope=0.15)
        top = np.array((0.0, 0.0, (HEAD + 0.03) * size + self.bob))
        if person.hair == "bun":
            self.canvas.blob(top + np.array((0.0, -0.09, 0.02)), 0.055, person.hair_colour)
        elif person.hair == "cap":
            brim = np.array(((-0.05, 0.1, 0.0), (0.0, 0.19, -0.01), (0.05, 0.1, 0.0))) + top
            self.canvas.line(brim, 0.03, person.hat_colour)

    def hair_back(self) -> None:
        person = self.person
        low = 0.76 if person.hair == "long" else 0.80
        wide = 0.098 if person.hair == "long" else 0.04
        rings = self.rings(((low, wide * 0.8, 0.05), (0.86, wide, 0.06), (0.94, wide * 0.9, 0.06)))
        rings[:, 4] -= 0.065
        self.canvas.surface(rings, person.hair_colour)

    def backpack(self) -> None:
        person = self.person
        wide, deep = person.shoulders * 0.74, 0.085
        rings = self.rings(
            ((0.575, wide * 0.9, deep), (0.66, wide, deep * 1.15), (0.79, wide * 0.9, deep * 0.9),
             (0.82, wide * 0.55, deep * 0.5))
        )  # fmt: skip
        rings[:, 4] -= 0.118 * person.girth * self.padding + 0.05
        dark = _scaled(person.bag_colour, 0.7)

        def paint(azimuth: float, fraction: float) -> Rgb:
            pocket = fraction < 0.42 and abs(abs(azimuth) - np.pi) < 1.0
            return dark if pocket else person.bag_colour

        self.canvas.surface(_subdivide(rings, 6), paint, slope=0.15)

    def backpack_straps(self) -> None:
        depth = 0.12 * self.person.girth * self.padding
        for side in (-1, 1):
            x = side * self.person.shoulders * 0.58
            strap = np.array(
                ((x, 0.0, 0.83 * self.size), (x, depth, 0.77 * self.size),
                 (x * 1.25, depth * 0.5, 0.63 * self.size))
            )  # fmt: skip
            self.canvas.line(strap, 0.045, self.person.bag_colour)

    def shoulder_bag(self) -> None:
        person, side = self.person, self.person.bag_side
        depth = 0.125 * person.girth * self.padding
        depth_sign = -1.0 if self.back_shows else 1.0
        strap = np.array(
            ((-side * person.shoulders * 0.6, 0.0, 0.825 * self.size),
             (0.0, depth_sign * depth, 0.68 * self.size),
             (side * person.hips * 1.1, 0.0, 0.53 * self.size))
        )  # fmt: skip
        self.canvas.line(strap, 0.035, person.bag_colour)
        x = side * (person.hips * person.girth * self.padding + 0.05)
        self._box(x, -0.02, 0.43, 0.53, 0.075, 0.14)

    def hand_bag(self, hand: NDArray[np.float64]) -> None:
        low, high, deep = (
            (-0.27, -0.08, 0.15) if self.person.bag == "handbag" else (-0.42, -0.1, 0.18)
        )
        grip = np.stack((hand, hand + np.array((0.0, 0.0, high))))
        self.canvas.line(grip, 0.03, self.person.bag_colour)
        rings = np.array(
            [(hand[2] + z, 0.06, deep, hand[0], hand[1]) for z in (low, (low + high) / 2, high)]
        )
        self.canvas.surface(rings, self.person.bag_colour)

    def _box(self, x: float, y: float, low: float, high: float, wide: float, deep: float) -> None:
        rings = self.rings(
            ((low, wide, deep), ((low + high) / 2, wide * 1.1, deep), (high, wide, deep))
        )
        rings[:, 3] += x
        rings[:, 4] += y
        self.canvas.surface(rings, self.person.bag_colour)


def _head_painter(person: Person) -> Painter:
    brow = {"bald": 2.0, "cap": 0.6, "hood": 0.62}.get(person.hair, 0.72)
    reach = {"short": 1.5, "bob": 1.0, "long": 1.0, "hood": 0.95, "cap": 1.6}.get(person.hair, 1.4)
    nape = {"short": 0.4, "cap": 0.4, "ponytail": 0.35, "bun": 0.45}.get(person.hair, 0.0)
    cover = person.top_colour if person.hair == "hood" else person.hair_colour
    crown = person.hat_colour if person.hair == "cap" else cover

    def paint(azimuth: float, fraction: float) -> Rgb:
        if fraction > brow:
            return crown
        if person.hair != "bald" and abs(azimuth) > reach and fraction > nape:
            return cover
        # Eye sockets darken the front of the face just enough to tell front from side.
        return _scaled(person.skin, 0.82) if 0.5 < fraction < 0.62 else person.skin

    return paint


def _subdivide(rings: NDArray[np.float64], bands: int) -> NDArray[np.float64]:
    """Resample rings to at least ``bands`` evenly spaced rows, keeping the outline."""
    z = np.union1d(np.linspace(rings[0, 0], rings[-1, 0], bands + 1), rings[:, 0])
    columns = [np.interp(z, rings[:, 0], rings[:, column]) for column in range(1, 5)]
    return np.column_stack((z, *columns))


def _scaled(colour: Rgb, factor: float) -> Rgb:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
