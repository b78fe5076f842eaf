"""Pairs of crops whose identity is known without a label.

    same       two crops of one track, from its first and from its second half: far apart in time,
               since a track's neighbouring frames are nearly one picture
    different  crops of two tracks of one camera that run at the same time; crops of two cameras
               taken within ``simultaneous`` seconds, unless the cameras' views may overlap

Where no times are known, or nobody else is about, pairs of two tracks at random stand for the
latter: a share of them, one in the number of people, does show one person, and a note says so.

Work and memory are O(N log N): crops are sorted by time and looked up in windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.export.sightings import UNKNOWN, Sightings
from resight.errors import FailedPrecondition

__all__ = ["LabelFreePairs", "PairSettings", "choose_crops", "tracklet_pairs"]

_MIN_PAIRS = 50
_HELD_OUT = 0.3
_TRIES = 8


@dataclass(frozen=True)
class PairSettings:
    """What counts as one moment, and how many pairs are drawn.

    Attributes:
        simultaneous: Seconds within which nobody gets from one camera to another.
        views_overlap: Whether one person may be in the view of two cameras at once.
        per_track: Pairs drawn of a track.
        limit: Pairs drawn of each kind.
    """

    simultaneous: float = 2.0
    views_overlap: bool = False
    per_track: int = 8
    limit: int = 20_000


@dataclass(frozen=True)
class LabelFreePairs:
    """P pairs of crops.

    Attributes:
        left, right: (P,) int64 rows of the crops.
        same: (P,) bool, whether they show one person.
        held_out: (P,) bool; no track has pairs on both sides.
        notes: What is weak about them.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    same: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    def similarities(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """(P,) cosine similarities by unit vectors (N, D)."""
        result = np.empty(len(self.left))
        for start in range(0, len(result), 4096):
            part = slice(start, start + 4096)
            a, b = vectors[self.left[part]], vectors[self.right[part]]
            result[part] = np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64))
        return result


def choose_crops(sightings: Sightings, limit: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Crops that form pairs with each other, in rising order.

    Moments are drawn at random; at each, the crops of all tracks that run then are taken, and of
    each such track its crop farthest away in time. Without tracks: crops at random.

    Args:
        sightings: Of N crops.
        limit: Most crops to choose.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    tracked = np.flatnonzero(sightings.tracks != UNKNOWN)
    if len(sightings) <= limit or not len(tracked):
        return np.sort(rng.permutation(len(sightings))[:limit])
    spans = _Spans.of(sightings)
    chosen: dict[int, None] = {}
    for anchor in rng.permutation(tracked):
        if len(chosen) >= limit:
            break
        moment = sightings.times[anchor]
        tracks = spans.running(moment) if np.isfinite(moment) else [sightings.tracks[anchor]]
        for track in tracks:
            rows = spans.rows(int(track))
            gap = np.abs(sightings.times[rows] - moment)
            near, far = (0, len(rows) - 1) if np.isnan(gap).any() else (gap.argmin(), gap.argmax())
            chosen |= {int(rows[near]): None, int(rows[far]): None}
    return np.sort(np.array(list(chosen)[:limit], np.int64))


def tracklet_pairs(
    sightings: Sightings, settings: PairSettings | None = None, *, seed: int = 0
) -> LabelFreePairs:
    """Draws pairs of one person and of two.

    Args:
        sightings: Of N crops.
        settings: Default ``PairSettings()``.
        seed: Of the draw and of the split.

    Raises:
        FailedPrecondition: Too few tracks for 50 pairs of each kind to fit on, and some to test on.
    """
    settings = settings or PairSettings()
    rng = np.random.default_rng(seed)
    spans = _Spans.of(sightings)
    positive = _positives(spans, settings, rng)
    negative = _simultaneous(sightings, spans, settings, rng)
    notes: list[str] = []
    held = np.append(rng.random(spans.count) < _HELD_OUT, False)  # the last for crops untracked
    if _usable(sightings, negative, held) < _MIN_PAIRS:
        notes.append(
            "too few people are seen at one time: pairs of two tracks at random stand for two"
            " people, and some of them show one"
        )
        negative = _random(sightings, settings, rng)
    pairs = np.concatenate([positive, negative])
    same = np.arange(len(pairs)) < len(positive)
    sides = held[sightings.tracks[pairs]]
    kept = sides[:, 0] == sides[:, 1]
    pairs, same, held_out = pairs[kept], same[kept], sides[kept, 0]
    for name, kind in (("one track", same), ("two tracks", ~same)):
        count = int((kind & ~held_out).sum())
        if count < _MIN_PAIRS:
            raise FailedPrecondition(
                f"calibration: {count} pairs of {name} to fit on, {_MIN_PAIRS} are needed: give"
                " more crops with tracks",
                field="crops",
                reason="TOO_FEW_TRACKS",
            )
    return LabelFreePairs(pairs[:, 0], pairs[:, 1], same, held_out, tuple(notes))


@dataclass(frozen=True)
class _Spans:
    """Each track's crops in the order of time, and when it begins and ends."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    begins: NDArray[np.float64]
    ends: NDArray[np.float64]
    by_begin: NDArray[np.int64]
    longest: float

    @classmethod
    def of(cls, sightings: Sightings) -> _Spans:
        count = int(sightings.tracks.max(initial=UNKNOWN)) + 1
        order = np.lexsort((sightings.times, sightings.tracks))
        order = order[sightings.tracks[order] != UNKNOWN]
        starts = np.searchsorted(sightings.tracks[order], np.arange(count + 1))
        begins, ends = np.full(count, np.nan), np.full(count, np.nan)
        filled = np.flatnonzero(np.diff(starts) > 0)
        begins[filled] = sightings.times[order[starts[filled]]]
        ends[filled] = sightings.times[order[starts[filled + 1] - 1]]
        known = np.isfinite(begins) & np.isfinite(ends)
        longest = float((ends - begins)[known].max(initial=0))
        by_begin = np.flatnonzero(known)
        return cls(order, starts, begins, ends, by_begin[np.argsort(begins[by_begin])], longest)

    @property
    def count(self) -> int:
        return len(self.begins)

    def rows(self, track: int) -> NDArray[np.int64]:
        return self.order[self.starts[track] : self.starts[track + 1]]

    def running(self, moment: float) -> NDArray[np.int64]:
        """Tracks that have begun and not ended."""
        begins = self.begins[self.by_begin]
        low, high = np.searchsorted(begins, [moment - self.longest, moment], "left")
        high = int(np.searchsorted(begins, moment, "right"))
        candidates = self.by_begin[low:high]
        return candidates[self.ends[candidates] >= moment]


def _positives(
    spans: _Spans, settings: PairSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    found = []
    for track in rng.permutation(spans.count):
        rows = spans.rows(int(track))
        half = len(rows) // 2
        if not half:
            continue
        count = min(settings.per_track, half)
        early = rng.permutation(rows[:half])[:count]
        late = rng.permutation(rows[-half:])[:count]
        found.append(np.stack([early, late], axis=1))
    return _joined(found)[: settings.limit]


def _simultaneous(
    sightings: Sightings, spans: _Spans, settings: PairSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Pairs of people seen at one time; a crop tries a few partners at random."""
    times, cameras, tracks = sightings.times, sightings.cameras, sightings.tracks
    rows = np.flatnonzero(np.isfinite(times) & (tracks != UNKNOWN))
    rows = rows[np.argsort(times[rows], kind="stable")]
    moments = times[rows]
    # Two tracks of one camera may overlap although these two crops of theirs lie apart.
    reach = max(settings.simultaneous, spans.longest)
    low = np.searchsorted(moments, moments - reach, "left")
    high = np.searchsorted(moments, moments + reach, "right")
    left = np.repeat(np.arange(len(rows)), _TRIES)
    right = low[left] + (rng.random(len(left)) * (high - low)[left]).astype(np.int64)
    left, right = rows[left], rows[right]
    a, b = tracks[left], tracks[right]
    one_camera = cameras[left] == cameras[right]
    overlap = (spans.begins[a] <= spans.ends[b]) & (spans.begins[b] <= spans.ends[a])
    near = np.abs(times[left] - times[right]) <= settings.simultaneous
    known = (cameras[left] != UNKNOWN) & (cameras[right] != UNKNOWN)
    far_apart = known & ~one_camera & near & (not settings.views_overlap)
    kept = (a != b) & ((known & one_camera & overlap) | far_apart)
    return _drawn(left[kept], right[kept], settings, rng)


def _random(
    sightings: Sightings, settings: PairSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    rows = np.flatnonzero(sightings.tracks != UNKNOWN)
    if not len(rows):
        return _joined([])
    left, right = rng.choice(rows, (2, min(settings.limit, len(rows) * _TRIES)))
    kept = sightings.tracks[left] != sightings.tracks[right]
    return _drawn(left[kept], right[kept], settings, rng)


def _drawn(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    settings: PairSettings,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    pairs = np.sort(np.stack([left, right], axis=1), axis=1)
    return rng.permutation(np.unique(pairs, axis=0))[: settings.limit]


def _usable(sightings: Sightings, pairs: NDArray[np.int64], held: NDArray[np.bool_]) -> int:
    """Pairs that lie on the fitting side alone."""
    return int((~held[sightings.tracks[pairs]]).all(axis=1).sum()) if len(pairs) else 0


def _joined(found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)
