"""Label-free pairs on a schedule whose truth is known: every pair is checked against it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.export.pairs import PairSettings, choose_crops, tracklet_pairs
from adapt.export.sightings import UNKNOWN, Sightings, sightings_of
from resight.crops import CropRef
from resight.errors import FailedPrecondition


def site(
    people: int = 120, cameras: int = 4, *, seed: int = 0, busy: float = 300.0
) -> tuple[Sightings, NDArray[np.int64]]:
    """People who cross the cameras one after the other; returns who each crop shows."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, float, int]] = []
    track = 0
    for person in range(people):
        moment = rng.uniform(0, busy)
        for camera in rng.permutation(cameras)[:3]:
            for _ in range(rng.integers(3, 9)):
                rows.append((int(camera), track, moment, person))
                moment += rng.uniform(0.2, 0.8)
            moment += rng.uniform(10, 30)  # the way to the next camera
            track += 1
    rng.shuffle(rows)
    table = np.array(rows)
    sightings = Sightings(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2].copy()
    )
    return sightings, table[:, 3].astype(np.int64)


def test_every_pair_says_the_truth() -> None:
    sightings, person = site()
    pairs = tracklet_pairs(sightings, seed=1)
    assert np.array_equal(person[pairs.left] == person[pairs.right], pairs.same)
    assert pairs.same.sum() > 200
    assert (~pairs.same).sum() > 200
    assert pairs.notes == ()
    keys = set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert len(keys) == len(pairs.left)


def test_pairs_of_one_person_lie_apart_in_time() -> None:
    sightings, _ = site()
    pairs = tracklet_pairs(sightings)
    for left, right in zip(pairs.left[pairs.same], pairs.right[pairs.same], strict=True):
        track = np.sort(sightings.times[sightings.tracks == sightings.tracks[left]])
        first, second = sorted(sightings.times[[left, right]])
        assert first <= track[(len(track) - 1) // 2]
        assert second >= track[len(track) // 2]


def test_pairs_of_two_people_are_of_one_moment() -> None:
    sightings, _ = site()
    pairs = tracklet_pairs(sightings, PairSettings(simultaneous=1.0))
    kinds = set()
    for left, right in zip(pairs.left[~pairs.same], pairs.right[~pairs.same], strict=True):
        one_camera = sightings.cameras[left] == sightings.cameras[right]
        kinds.add(bool(one_camera))
        if one_camera:
            a, b = (
                sightings.times[sightings.tracks == sightings.tracks[row]] for row in (left, right)
            )
            assert a.min() <= b.max()
            assert b.min() <= a.max()
        else:
            assert abs(sightings.times[left] - sightings.times[right]) <= 1.0
    assert kinds == {True, False}


def test_no_track_lies_on_both_sides() -> None:
    sightings, _ = site()
    pairs = tracklet_pairs(sightings)
    sides: dict[int, set[bool]] = {}
    for rows in (pairs.left, pairs.right):
        for row, held in zip(rows, pairs.held_out, strict=True):
            sides.setdefault(int(sightings.tracks[row]), set()).add(bool(held))
    assert all(len(found) == 1 for found in sides.values())
    assert 0.03 < pairs.held_out.mean() < 0.5


def test_overlapping_views_give_pairs_of_one_camera_alone() -> None:
    """One person in two views at once, under two tracks, must not count as two people."""
    sightings, person = site(busy=200.0)
    twins = Sightings(
        np.concatenate([sightings.cameras, sightings.cameras + 4]),
        np.concatenate([sightings.tracks, sightings.tracks + sightings.tracks.max() + 1]),
        np.tile(sightings.times, 2),
    )
    person = np.tile(person, 2)
    wrong = tracklet_pairs(twins)
    assert (person[wrong.left] == person[wrong.right])[~wrong.same].any()
    right = tracklet_pairs(twins, PairSettings(views_overlap=True))
    assert np.array_equal(person[right.left] == person[right.right], right.same)
    different = ~right.same
    assert (twins.cameras[right.left] == twins.cameras[right.right])[different].all()


def test_a_lonely_site_falls_back_to_random_pairs_and_says_so() -> None:
    sightings, person = site(busy=1e6)
    pairs = tracklet_pairs(sightings)
    assert "at random" in pairs.notes[0]
    wrong = (person[pairs.left] == person[pairs.right]) & ~pairs.same
    assert wrong.sum() < 0.05 * (~pairs.same).sum()
    assert (person[pairs.left] == person[pairs.right])[pairs.same].all()


def test_untracked_crops_take_no_part() -> None:
    sightings, _ = site()
    tracks = sightings.tracks.copy()
    tracks[::3] = UNKNOWN
    pairs = tracklet_pairs(Sightings(sightings.cameras, tracks, sightings.times))
    assert (tracks[pairs.left] != UNKNOWN).all()
    assert (tracks[pairs.right] != UNKNOWN).all()


@pytest.mark.parametrize("case", ["no tracks", "no times", "few"])
def test_too_little_is_refused(case: str) -> None:
    sightings, person = site(people=5 if case == "few" else 120)
    tracks, times = sightings.tracks, sightings.times
    if case == "no tracks":
        tracks = np.full_like(tracks, UNKNOWN)
    if case == "no times":
        pairs = tracklet_pairs(Sightings(sightings.cameras, tracks, np.full_like(times, np.nan)))
        assert "at random" in pairs.notes[0]
        assert (person[pairs.left] == person[pairs.right])[pairs.same].all()
        return
    with pytest.raises(FailedPrecondition, match="50 are needed"):
        tracklet_pairs(Sightings(sightings.cameras, tracks, times))


def test_chosen_crops_form_pairs_with_each_other() -> None:
    sightings, _ = site(people=2000, busy=20_000.0)
    chosen = choose_crops(sightings, 600, seed=3)
    assert len(chosen) == len(set(chosen.tolist())) == 600
    assert (np.diff(chosen) > 0).all()
    few = tracklet_pairs(sightings.take(chosen))
    assert few.notes == ()
    random = np.sort(np.random.default_rng(0).permutation(len(sightings))[:600])
    with pytest.raises(FailedPrecondition):
        tracklet_pairs(sightings.take(random))
    assert np.array_equal(choose_crops(sightings, 10**6), np.arange(len(sightings)))


def test_sightings_of_crops_tell_cameras_tracks_and_times() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    crops = [
        CropRef(Path("a"), camera="east", track="1", capture_time=start),
        CropRef(Path("b"), camera="west", track="1", capture_time=start + timedelta(seconds=2)),
        CropRef(Path("c"), camera="east", track="1"),
        CropRef(Path("d")),
    ]
    found = sightings_of(crops)
    assert found.tracks[0] == found.tracks[2] != found.tracks[1]
    assert found.cameras[0] == found.cameras[2] != found.cameras[1]
    assert (found.cameras[3], found.tracks[3]) == (UNKNOWN, UNKNOWN)
    assert found.times[1] - found.times[0] == 2
    assert np.isnan(found.times[2:]).all()
    groups = found.groups()
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 3
