"""How many crops of each camera, when not all can be taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Quota", "quota", "shares"]


@dataclass(frozen=True)
class Quota:
    """Crops to take of each camera: ``new`` ones, and older ones for ``replay``."""

    new: Mapping[str, int]
    replay: Mapping[str, int]


def quota(new: Mapping[str, int], older: Mapping[str, int], *, most: int, replay: float) -> Quota:
    """Splits a night's crops over cameras.

    Args:
        new: Crops of each camera in the run's window.
        older: Those of before it.
        most: New crops wanted of all cameras; 0 for all there are.
        replay: Older crops wanted for each new one.
    """
    wanted = min(most or sum(new.values()), sum(new.values()))
    return Quota(shares(new, wanted), shares(older, round(replay * wanted)))


def shares(available: Mapping[str, int], total: int) -> dict[str, int]:
    """Splits ``total`` evenly over cameras; what one cannot give, the others do.

    The result q is q_c = min(available_c, level) for one level, but for the remainder of the
    division, which the cameras with most crops get. A camera that sees few people is so not
    crowded out by one that sees many.

    Args:
        available: Crops of each camera.
        total: Crops wanted of all.

    Returns:
        Crops to take of each camera; their sum is min(total, all that are available).
    """
    taken = dict.fromkeys(available, 0)
    left = max(0, min(total, sum(available.values())))
    # From the poorest camera on, each gets an equal part of what is left.
    order = sorted(available, key=lambda name: (available[name], name))
    for index, name in enumerate(order):
        taken[name] = min(available[name], left // (len(order) - index))
        left -= taken[name]
    return taken
