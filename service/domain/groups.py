"""Matches of one camera or one track together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from resight.errors import InvalidArgument

__all__ = ["GroupBy", "Grouping", "grouping"]

DEFAULT_GROUP_SIZE = 3


class GroupBy(Enum):
    """What matches of a group have in common; a crop without a track is a group of its own."""

    NOTHING = "nothing"
    CAMERA = "camera"
    TRACK = "track"


@dataclass(frozen=True, slots=True)
class Grouping:
    """How matches are grouped, and the most matches a group."""

    by: GroupBy
    size: int


def grouping(
    by: GroupBy, size: int | None, *, groups: int, page_token: str, limit: int
) -> Grouping | None:
    """The grouping asked for; None for none.

    Args:
        by: What groups have in common.
        size: Most matches a group; 3 when None.
        groups: Groups wanted.
        page_token: Must be empty: groups have no pages.
        limit: Most matches of all groups together.

    Raises:
        InvalidArgument: a size out of range or without effect, or a page token.
    """
    if by is GroupBy.NOTHING:
        if size is not None:
            raise InvalidArgument(
                "group_size has an effect only with group_by; remove it", field="group_size"
            )
        return None
    if page_token:
        raise InvalidArgument(
            "page_token has no effect with group_by: groups have no pages; raise top_k",
            field="page_token",
        )
    if size is None:
        return Grouping(by, max(1, min(DEFAULT_GROUP_SIZE, limit // groups)))
    if not 1 <= size <= limit // groups:
        raise InvalidArgument(
            f"group_size {size} is out of range; {groups} groups (top_k) can have 1 to "
            f"{limit // groups} matches each (limits.max_top_k together)",
            field="group_size",
        )
    return Grouping(by, size)
