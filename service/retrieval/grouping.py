"""The best groups of matches, exactly.

A group ranks by its best match, and shows its best ones. The first groups are found by ranking
deeper until there are enough: by camera, what is found already is left out of the next look, so
that one crowded camera costs one look; by track, tracks are short, and the ranking is deepened.
A group that shows fewer than it may is then asked for by its own camera and track.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from resight.errors import InvalidArgument
from service.domain.groups import GroupBy, Grouping
from service.domain.ports import RowFilter
from service.domain.query import Match

__all__ = ["Find", "Found", "grouped"]


class Found(NamedTuple):
    """The best matches under a filter, and whether they are all there are."""

    matches: Sequence[Match]
    every: bool


Find = Callable[[int, RowFilter], Awaitable[Found]]
Key = tuple[str, ...]


async def grouped(
    find: Find,
    grouping: Grouping,
    *,
    count: int,
    chosen: RowFilter,
    camera_row: Callable[[str], int],
    deepest: int,
) -> list[list[Match]]:
    """The best groups, best first, each with its best matches, best first.

    Args:
        find: The best so many matches under a filter.
        grouping: By what, and how many a group.
        count: Groups wanted; there are fewer where fewer exist.
        chosen: Which rows may match.
        camera_row: A camera's key.
        deepest: Most matches looked at to find the groups.

    Raises:
        InvalidArgument: the best ``deepest`` matches are of too few tracks.
    """
    if grouping.by is GroupBy.CAMERA:
        groups, whole = await _by_camera(find, grouping, count, chosen, camera_row)
    else:
        groups, whole = await _by_track(find, grouping, count, chosen, deepest)
    answer = []
    for key, matches in list(groups.items())[:count]:
        shown = matches[: grouping.size]
        if len(shown) < grouping.size and key not in whole:
            own = replace(chosen, include_cameras=frozenset({camera_row(key[0])}))
            if grouping.by is GroupBy.TRACK:
                own = replace(own, include_tracks=frozenset({key[1]}))
            shown = list((await find(grouping.size, own)).matches) or shown
        answer.append(shown)
    return answer


async def _by_camera(
    find: Find,
    grouping: Grouping,
    count: int,
    chosen: RowFilter,
    camera_row: Callable[[str], int],
) -> tuple[dict[Key, list[Match]], set[Key]]:
    groups: dict[Key, list[Match]] = {}
    left, depth = chosen, count * grouping.size
    while True:
        found = await find(depth, left)
        fresh = _parted(found.matches, grouping.by)
        groups |= fresh
        if found.every or len(groups) >= count:
            return groups, set(fresh) if found.every else set()
        if not fresh:
            # All that was found has been deleted since: look behind it.
            depth *= 4
        seen = {camera_row(key[0]) for key in groups}
        left = replace(chosen, exclude_cameras=chosen.exclude_cameras | seen)


async def _by_track(
    find: Find, grouping: Grouping, count: int, chosen: RowFilter, deepest: int
) -> tuple[dict[Key, list[Match]], set[Key]]:
    depth = count * grouping.size
    while True:
        found = await find(depth, chosen)
        groups = _parted(found.matches, grouping.by)
        if found.every:
            return groups, set(groups)
        if len(groups) >= count:
            return groups, {key for key in groups if not key[1]}
        if depth >= deepest:
            raise InvalidArgument(
                f"group_by: the best {depth} matches (limits.max_ranked) are of {len(groups)} "
                f"tracks and {count} are wanted; lower top_k or narrow the filter",
                field="group_by",
            )
        depth = min(4 * depth, deepest)


def _parted(matches: Sequence[Match], by: GroupBy) -> dict[Key, list[Match]]:
    groups: dict[Key, list[Match]] = {}
    for match in matches:
        crop = match.crop
        key: Key = (crop.camera_id,)
        if by is GroupBy.TRACK:
            alone = "" if crop.track_id else str(crop.crop_id)
            key = (crop.camera_id, crop.track_id, alone)
        groups.setdefault(key, []).append(match)
    return groups
