"""Travel times between cameras, learned from tracks that match each other, without labels.

a, b      tracks: the crops of one track of one camera (a crop without a track by itself), parted
          where it pauses for longer than the horizon: trackers begin to count anew; from their
          first capture to their last, v the mean of their vectors, of unit length
C(A, B) = { (a, b) : a of camera A, b of B, a.start <= b.start <= a.end + horizon },  A other than B
a ~ b     when <v_a, v_b> is the largest of (a, .) and of (., b) in C(A, B), ties to the earliest,
          and reaches the lowest score
hop       a ~ b with no a ~ c that starts before b and no c ~ b that ends after a: the person was
          seen nowhere between; it takes b.start - a.end seconds
min     = q(.05) - |q(.05)| / 2,   typical = q(.5),   max = q(.95) + |q(.95)| / 2

q are quantiles of the seconds of an ordered pair's hops, linear between neighbours. A false match
takes any time up to the horizon, so few false ones move the quantiles little; below the fastest
twentieth there is room for somebody who runs, because a minimum makes sightings impossible. It is
below zero where both cameras see a person at once. The lowest score is the caller's (a calibrated
probability's), or a quantile of the scores of all pairs that are best for each other.

A pair is unknown with fewer hops than asked for, and where chance explains them: the same is done
with the vectors of each camera shuffled among its tracks, which leaves nothing but look-alikes; a
known pair has four times as many hops, or other seconds, by the two-sample test of Kolmogorov and
Smirnov at .01 (largest distance of the distribution functions above 1.63 sqrt(1/n + 1/m)).

Tracks are compared by pairs of cameras, BLOCK at a time. A camera with fewer tracks than hops are
asked for can have no known pair and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.domain.trajectory import TravelTime
from service.domain.travel_times import LearnedPair

__all__ = ["Learned", "Tracks", "learned", "shuffled", "tracks_of"]

BLOCK = 512
MICROS = 1_000_000
FAST, SLOW = 0.05, 0.95
ROOM = 0.5
# Of Kolmogorov's distribution at .01.
CRITICAL = 1.63
SEED = 0


class Tracks(NamedTuple):
    """Tracks by start, aligned.

    Args:
        cameras: N camera ids.
        starts, ends: int64 (N,) microseconds.
        vectors: float32 (N, D), unit L2 norm.
    """

    cameras: Sequence[str]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    vectors: NDArray[np.float32]


class Learned(NamedTuple):
    """Pairs of cameras with a hop, and the lowest score of a match that counted."""

    pairs: list[LearnedPair]
    lowest_score: float


class _Camera(NamedTuple):
    """One camera's tracks: their places in all, and theirs of the rest."""

    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    vectors: NDArray[np.float32]


class _Matches(NamedTuple):
    """Pairs of tracks that are best for each other."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    scores: NDArray[np.float32]


def tracks_of(
    cameras: Sequence[str],
    track_ids: Sequence[str],
    times: NDArray[np.int64],
    vectors: NDArray[np.float32],
    *,
    horizon_seconds: float,
    most: int,
) -> Tracks:
    """The tracks of crops, the latest ``most`` by start.

    Args:
        cameras: Camera id of each of N crops.
        track_ids: Its track, or empty.
        times: int64 (N,), microseconds.
        vectors: float32 (N, D).
        horizon_seconds: Longest pause of a track.
        most: Tracks kept.
    """
    members: dict[tuple[str, str, int], list[int]] = {}
    for place, (camera, track) in enumerate(zip(cameras, track_ids, strict=True)):
        members.setdefault((camera, track, -1 if track else place), []).append(place)
    spans = sorted(
        (int(times[rows[0]]), int(times[rows[-1]]), key, rows.tolist())
        for key, places in members.items()
        for rows in _parted(np.array(places), times, round(horizon_seconds * MICROS))
    )[-most:]
    means = np.empty((len(spans), vectors.shape[1]), np.float32)
    for place, (_, _, _, rows) in enumerate(spans):
        mean = vectors[rows].astype(np.float64).mean(axis=0)
        means[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return Tracks(
        [key[0] for _, _, key, _ in spans],
        np.array([start for start, _, _, _ in spans], np.int64),
        np.array([end for _, end, _, _ in spans], np.int64),
        means,
    )


def learned(
    tracks: Tracks,
    *,
    horizon_seconds: float,
    min_hops: int,
    lowest_score: float | None,
    score_quantile: float,
) -> Learned:
    """The travel time of every ordered pair of cameras with a hop.

    Args:
        tracks: By start.
        horizon_seconds: Longest hop.
        min_hops: Fewest hops of a pair that is known.
        lowest_score: Of a match that counts; None takes the quantile.
        score_quantile: Of the scores of all mutual matches, 0 to 1.
    """
    horizon = round(horizon_seconds * MICROS)
    lowest, hops = _hops(tracks, horizon, min_hops, lowest_score, score_quantile)
    _, by_chance = _hops(shuffled(tracks), horizon, min_hops, lowest, score_quantile)
    pairs = []
    for (one, other), seconds in hops.items():
        known = len(seconds) >= min_hops and _beyond_chance(seconds, by_chance[one, other])
        time = _time(one, other, seconds) if known else None
        if len(seconds):
            pairs.append(LearnedPair(one, other, len(seconds), time))
    return Learned(pairs, lowest)


def _parted(
    places: NDArray[np.int64], times: NDArray[np.int64], pause: int
) -> list[NDArray[np.int64]]:
    """The places by time, parted where more than ``pause`` lies between two."""
    ordered = places[np.argsort(times[places], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(times[ordered]) > pause) + 1)


def shuffled(tracks: Tracks) -> Tracks:
    """The tracks with the vectors of each camera in another order, always the same one."""
    rng = np.random.default_rng(SEED)
    cameras = np.array(tracks.cameras)
    order = np.arange(len(cameras))
    for camera in sorted(set(tracks.cameras)):
        places = np.flatnonzero(cameras == camera)
        order[places] = rng.permutation(places)
    return tracks._replace(vectors=tracks.vectors[order])


def _hops(
    tracks: Tracks,
    horizon: int,
    min_hops: int,
    lowest_score: float | None,
    score_quantile: float,
) -> tuple[float, dict[tuple[str, str], NDArray[np.float64]]]:
    """The lowest score that counted, and the seconds of the hops of every ordered pair."""
    places: dict[str, list[int]] = {}
    for place, camera in enumerate(tracks.cameras):
        places.setdefault(camera, []).append(place)
    views = {
        camera: _camera(tracks, rows) for camera, rows in places.items() if len(rows) >= min_hops
    }
    pairs = list(permutations(sorted(views), 2))
    found = [_mutual(views[one], views[other], horizon) for one, other in pairs]
    if not found:
        return 1.0 if lowest_score is None else lowest_score, {}
    number = np.repeat(np.arange(len(pairs)), [len(matches.one) for matches in found])
    matches = _Matches(*map(np.concatenate, zip(*found, strict=True)))
    if lowest_score is None:
        known = len(matches.scores)
        lowest_score = float(np.quantile(matches.scores, score_quantile)) if known else 1.0
    kept = matches.scores >= np.float32(lowest_score)
    number, one, other = number[kept], matches.one[kept], matches.other[kept]
    direct = _direct(tracks, one, other)
    seconds = ((tracks.starts[other] - tracks.ends[one]) / MICROS)[direct]
    order = np.argsort(number[direct], kind="stable")
    cuts = np.searchsorted(number[direct][order], np.arange(1, len(pairs)))
    return lowest_score, dict(zip(pairs, np.split(seconds[order], cuts), strict=True))


def _beyond_chance(seconds: NDArray[np.float64], chance: NDArray[np.float64]) -> bool:
    if 4 * len(chance) <= len(seconds):
        return True
    every = np.sort(np.concatenate((seconds, chance)))
    below = [
        np.searchsorted(np.sort(values), every, side="right") / len(values)
        for values in (seconds, chance)
    ]
    apart = float(np.abs(below[0] - below[1]).max())
    return bool(apart > CRITICAL * np.sqrt(1 / len(seconds) + 1 / len(chance)))


def _camera(tracks: Tracks, rows: list[int]) -> _Camera:
    places = np.array(rows, np.int64)
    return _Camera(places, tracks.starts[places], tracks.ends[places], tracks.vectors[places])


def _mutual(one: _Camera, other: _Camera, horizon: int) -> _Matches:
    """Those of two cameras that are best for each other, those of ``one`` first."""
    best, scores = np.full(len(one.places), -1), np.full(len(one.places), -np.inf, np.float32)
    back, highest = np.full(len(other.places), -1), np.full(len(other.places), -np.inf, np.float32)
    for start in range(0, len(one.places), BLOCK):
        part = slice(start, start + BLOCK)
        starts, ends = one.starts[part, None], one.ends[part, None] + horizon
        low = int(np.searchsorted(other.starts, starts[0, 0], side="left"))
        high = int(np.searchsorted(other.starts, ends.max(), side="right"))
        if low >= high:
            continue
        products = one.vectors[part] @ other.vectors[low:high].T
        times = other.starts[low:high]
        products[(times < starts) | (times > ends)] = -np.inf
        chosen = products.argmax(axis=1)
        best[part] = chosen + low
        scores[part] = np.take_along_axis(products, chosen[:, None], axis=1)[:, 0]
        rows = products.argmax(axis=0)
        values = np.take_along_axis(products, rows[None], axis=0)[0]
        higher = low + np.flatnonzero(values > highest[low:high])
        back[higher], highest[higher] = rows[higher - low] + start, values[higher - low]
    there = np.flatnonzero(scores > -np.inf)
    there = there[back[best[there]] == there]
    return _Matches(one.places[there], other.places[best[there]], scores[there])


def _direct(tracks: Tracks, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which matches have no other match between them."""
    first = np.full(len(tracks.starts), np.iinfo(np.int64).max)
    last = np.full(len(tracks.starts), np.iinfo(np.int64).min)
    np.minimum.at(first, one, tracks.starts[other])
    np.maximum.at(last, other, tracks.ends[one])
    found: NDArray[np.bool_] = (tracks.starts[other] == first[one]) & (
        tracks.ends[one] == last[other]
    )
    return found


def _time(from_camera: str, to_camera: str, seconds: NDArray[np.float64]) -> TravelTime:
    fast, typical, slow = np.quantile(seconds, (FAST, 0.5, SLOW)).tolist()
    return TravelTime(
        from_camera, to_camera, fast - ROOM * abs(fast), typical, slow + ROOM * abs(slow)
    )
