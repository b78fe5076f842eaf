"""Who walks about: body, hair, clothes and bag of each simulated person.

People come in look-alike groups: the members of a group wear the same colours and differ only in
pattern, cut, hair, bag and build, which is what a re-identification encoder has to learn to see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resight.simulate.palette import BAGS, BOTTOMS, HAIR, SHOES, SKIN, TOPS, Rgb, pick, vary
from resight.simulate.randomness import Purpose, stream

__all__ = ["BAG_KINDS", "BOTTOM_KINDS", "HAIR_KINDS", "PATTERNS", "TOP_KINDS", "Person", "people"]

HAIR_KINDS = ("short", "bob", "long", "ponytail", "bun", "bald", "cap", "hood")
TOP_KINDS = ("tee", "long_sleeve", "jacket_open", "jacket_closed", "coat")
PATTERNS = ("plain", "stripes", "logo", "two_tone", "check", "back_print", "block")
BOTTOM_KINDS = ("trousers", "shorts", "short_skirt", "long_skirt", "three_quarter")
BAG_KINDS = ("none", "backpack", "shoulder", "handbag", "tote")

_HAIR_ODDS = (0.36, 0.13, 0.16, 0.10, 0.05, 0.07, 0.08, 0.05)
_TOP_ODDS = (0.34, 0.22, 0.20, 0.14, 0.10)
_PATTERN_ODDS = (0.30, 0.14, 0.16, 0.12, 0.10, 0.10, 0.08)
_BOTTOM_ODDS = (0.56, 0.16, 0.09, 0.07, 0.12)
_BAG_ODDS = (0.32, 0.26, 0.18, 0.14, 0.10)


@dataclass(frozen=True)
class Person:
    """One person's unchanging looks. Lengths are in metres, colours on the 0..255 scale."""

    height: float
    girth: float
    shoulders: float
    hips: float
    skin: Rgb
    hair: str
    hair_colour: Rgb
    hat_colour: Rgb
    top: str
    top_colour: Rgb
    pattern: str
    accent: Rgb
    inner: Rgb
    bottom: str
    bottom_colour: Rgb
    shoes: Rgb
    bag: str
    bag_colour: Rgb
    bag_side: int
    stride: float
    arm_swing: float
    lean: float

    @property
    def short_sleeves(self) -> bool:
        """Whether the forearms are bare."""
        return self.top == "tee"


def people(seed: int, *, population: int, count: int, group: int) -> tuple[Person, ...]:
    """Draw ``count`` persons in look-alike groups.

    Args:
        seed: Seed of the simulation.
        population: Number of the crowd (training, test, bystanders), so that crowds differ.
        count: Number of persons.
        group: Size of a look-alike group; 1 gives everybody clothes of their own.
    """
    drawn = []
    for number in range(count):
        shared = stream(seed, Purpose.PEOPLE, population, 0, number // group)
        own = stream(seed, Purpose.PEOPLE, population, 1, number)
        drawn.append(_person(shared, own))
    return tuple(drawn)


def _choose(rng: np.random.Generator, kinds: tuple[str, ...], odds: tuple[float, ...]) -> str:
    return kinds[int(rng.choice(len(kinds), p=odds))]


def _person(shared: np.random.Generator, own: np.random.Generator) -> Person:
    top_colour, bottom_colour = pick(shared, TOPS), pick(shared, BOTTOMS)
    top_kind = _choose(shared, TOP_KINDS, _TOP_ODDS)
    if own.random() < 0.35:
        top_kind = _choose(own, TOP_KINDS, _TOP_ODDS)
    slender = own.random() < 0.5
    height = own.normal(1.65, 0.07) if slender else own.normal(1.77, 0.07)
    return Person(
        height=float(np.clip(height, 1.48, 1.98)),
        girth=float(np.clip(own.normal(1.0, 0.13), 0.78, 1.4)),
        shoulders=float(own.normal(0.215 if slender else 0.245, 0.01)),
        hips=float(own.normal(0.185 if slender else 0.172, 0.008)),
        skin=vary(own, pick(own, SKIN), 5),
        hair=_choose(own, HAIR_KINDS, _HAIR_ODDS),
        hair_colour=vary(own, pick(own, HAIR), 5),
        hat_colour=vary(own, pick(own, BAGS), 6),
        top=top_kind,
        top_colour=vary(own, top_colour, 4),
        pattern=_choose(own, PATTERNS, _PATTERN_ODDS),
        accent=_contrasting(own, top_colour),
        inner=_contrasting(own, top_colour),
        bottom=_choose(own, BOTTOM_KINDS, _BOTTOM_ODDS),
        bottom_colour=vary(own, bottom_colour, 4),
        shoes=vary(own, pick(own, SHOES), 5),
        bag=_choose(own, BAG_KINDS, _BAG_ODDS),
        bag_colour=vary(own, pick(own, BAGS), 5),
        bag_side=int(own.choice((-1, 1))),
        stride=float(own.uniform(0.36, 0.58)),
        arm_swing=float(own.uniform(0.2, 0.6)),
        lean=float(own.normal(0.03, 0.03)),
    )


def _contrasting(rng: np.random.Generator, colour: Rgb) -> Rgb:
    """A colour of the palette that can be told from ``colour`` on a small crop."""
    for _ in range(8):
        candidate = pick(rng, TOPS)
        if float(np.abs(np.subtract(candidate, colour)).sum()) > 150:
            return candidate
    return (230.0, 230.0, 226.0) if sum(colour) < 380 else (32.0, 32.0, 36.0)
