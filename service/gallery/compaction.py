"""Which segments to write anew, so that removed rows and scraps do not pile up."""

from __future__ import annotations

from collections.abc import Sequence

from service.gallery.segment import Segment

__all__ = ["MAX_DEAD_SHARE", "rewritten", "worst_run"]

# Tombstones are tolerated up to this share of a segment's rows.
MAX_DEAD_SHARE = 0.2
# Neighbours are merged while the result is at most this full: room for what is not yet dead.
MERGED_SHARE = 0.75


def worst_run(segments: Sequence[Segment], segment_rows: int) -> tuple[int, int] | None:
    """The segments start:stop most worth writing anew as one; None when all is well.

    The one with the most tombstones of those with too many; else two small sealed neighbours. The
    last segment, which is still being filled, has no neighbour after it.
    """
    dead = [
        (view.dead, place)
        for place, view in enumerate(segment.view for segment in segments)
        if view.dead > MAX_DEAD_SHARE * view.rows
    ]
    if dead:
        _, place = max(dead)
        return place, place + 1
    for place in range(len(segments) - 2):
        together = segments[place].view.living + segments[place + 1].view.living
        if together <= MERGED_SHARE * segment_rows:
            return place, place + 2
    return None


def rewritten(run: Sequence[Segment], dimension: int, *, capacity: int = 0) -> Segment:
    """A new segment with the living rows of these: sealed, or with room for ``capacity`` rows."""
    views = [segment.view for segment in run]
    if not capacity:
        return Segment.sealed(views, dimension)
    made = Segment(dimension, capacity)
    made.absorb(views)
    return made
