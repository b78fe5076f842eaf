"""Sightings of one person as a way between cameras.

A visit is a longest run of sightings before one camera in which none begins more than the gap after
all before it have ended; crops of one track are one sighting, from its first to its last, parted
where it pauses for longer than an hour: trackers begin to count anew. Visits are ordered by their
beginning. A hop from visit a to visit b of another camera takes
b.start - a.end and is impossible when the table knows the pair and that is less than its minimum.
The way is the sequence of visits, each hop possible, of the largest sum of weights: the
probability of a visit's best sighting, or (1 + score) / 2 without a calibration. What it leaves out
cannot be put back between its neighbours, and is told with the neighbour that forbids it.

The plausibility of a hop is the density of the triangular distribution on (min, typical, max),
relative to its mode. After the maximum it is late, not impossible: people stop where none looks.
Only neighbours are compared with each other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from service.domain.query import Match
from service.domain.trajectory import Conflict, Hop, HopKind, TravelTime, Visit

__all__ = ["Table", "best_way", "conflicts", "hop", "visits"]

MICROS = 1_000_000
TRACK_PAUSE_SECONDS = 3600.0
Table = Mapping[tuple[str, str], TravelTime]


def visits(
    sightings: Sequence[Match],
    gap_seconds: float,
    *,
    track_pause_seconds: float = TRACK_PAUSE_SECONDS,
) -> list[Visit]:
    """The visits of sightings, by beginning, end and camera."""
    units: dict[tuple[str, str, str], list[Match]] = {}
    for match in sightings:
        crop = match.crop
        alone = "" if crop.track_id else str(crop.crop_id)
        units.setdefault((crop.camera_id, crop.track_id, alone), []).append(match)
    spans = sorted(
        (
            (key[0], _time(unit[0]), _time(unit[-1]), unit)
            for key, members in units.items()
            for unit in _parted(members, track_pause_seconds * MICROS)
        ),
        key=lambda span: span[:3],
    )
    gap = gap_seconds * MICROS
    runs: list[list[Match]] = []
    camera, end = "", 0
    for name, start, stop, unit in spans:
        if runs and name == camera and start - end <= gap:
            runs[-1] += unit
            end = max(end, stop)
        else:
            runs.append(list(unit))
            camera, end = name, stop
    found = [
        Visit(sorted(run, key=lambda match: (_time(match), match.crop.crop_id))) for run in runs
    ]
    return sorted(found, key=lambda visit: (visit.start, visit.end, visit.camera_id))


def _parted(members: Sequence[Match], pause: float) -> Iterator[list[Match]]:
    """The members by time, parted where more than ``pause`` microseconds lie between two."""
    ordered = sorted(members, key=_time)
    start = 0
    for place, (one, other) in enumerate(pairwise(ordered), 1):
        if _time(other) - _time(one) > pause:
            yield ordered[start:place]
            start = place
    yield ordered[start:]


def hop(one: Visit, other: Visit, table: Table) -> Hop | None:
    """The hop between two visits; None when it is impossible."""
    seconds = (other.start - one.end) / MICROS
    if one.camera_id == other.camera_id:
        return Hop(HopKind.SAME_CAMERA, seconds, None)
    time = table.get((one.camera_id, other.camera_id))
    if time is None:
        return Hop(HopKind.UNKNOWN, seconds, None)
    if seconds < time.min_seconds:
        return None
    if seconds > time.max_seconds:
        return Hop(HopKind.LATE, seconds, 0.0)
    rising = seconds <= time.typical_seconds
    edge = time.min_seconds if rising else time.max_seconds
    width = abs(time.typical_seconds - edge)
    return Hop(HopKind.PLAUSIBLE, seconds, abs(seconds - edge) / width if width else 1.0)


def best_way(ordered: Sequence[Visit], table: Table) -> list[int]:
    """The places of the visits of the best way, ascending."""
    total: list[float] = []
    before: list[int] = []
    for place, visit in enumerate(ordered):
        best, source = 0.0, -1
        # The latest first: its total is mostly the largest, and then no other is looked at.
        for earlier in reversed(range(place)):
            if total[earlier] > best and hop(ordered[earlier], visit, table) is not None:
                best, source = total[earlier], earlier
        total.append(best + _weight(visit))
        before.append(source)
    way: list[int] = []
    place = max(range(len(total)), key=total.__getitem__, default=-1)
    while place >= 0:
        way.append(place)
        place = before[place]
    return way[::-1]


def conflicts(ordered: Sequence[Visit], way: Sequence[int], table: Table) -> list[Conflict]:
    """The visits that the way leaves out, each with the neighbour that forbids it."""
    found = []
    chosen = set(way)
    for place, visit in enumerate(ordered):
        if place in chosen:
            continue
        after = bisect_left(way, place)
        for neighbour in (after - 1, after):
            if not 0 <= neighbour < len(way):
                continue
            other = ordered[way[neighbour]]
            one, two = (other, visit) if neighbour < after else (visit, other)
            if hop(one, two, table) is None:
                needed = table[one.camera_id, two.camera_id].min_seconds
                seconds = (two.start - one.end) / MICROS
                found.append(Conflict(visit, neighbour, seconds, needed))
                break
    return found


def _time(match: Match) -> int:
    return match.crop.capture_micros


def _weight(visit: Visit) -> float:
    """Above zero, so that whatever can be put in is."""
    best = visit.best
    likely = (1.0 + best.score) / 2.0 if best.probability is None else best.probability
    return max(likely, 1e-9)
