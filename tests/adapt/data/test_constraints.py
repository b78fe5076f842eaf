"""Constraints from what a source knows of its crops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from adapt.data.constraints import crop_constraints
from resight.crops import CropRef
from resight.errors import InvalidArgument

DAWN = datetime(2024, 5, 1, 6, tzinfo=UTC)


def crop(camera: str | None, track: str | None, seconds: float | None) -> CropRef:
    time = None if seconds is None else DAWN + timedelta(seconds=seconds)
    return CropRef(Path("x.jpg"), camera=camera, track=track, capture_time=time)


CROPS = [
    crop("hall", "7", 100.0), crop("gate", "7", 101.5), crop("hall", "7", 102.25),
    crop("gate", None, 100.0), crop("hall", "8", None), crop(None, "7", 100.0),
]  # fmt: skip


def test_tracks_are_a_cameras_own_and_times_exact() -> None:
    read = crop_constraints(CROPS, separate=True)
    known = read.constraints
    assert known is not None
    assert known.tracks[0] == known.tracks[2] != known.tracks[1]
    assert len(set(known.tracks[[0, 1, 4]])) == 3
    assert known.tracks[3] == known.tracks[5] == -1
    assert known.cameras.tolist() == [1, 0, 1, 0, 1, -1]
    assert known.times.tolist() == [0, 1_500_000, 2_250_000, 0, -1, 0]
    assert known.separate
    assert not known.apart.any()
    assert read.notes == (
        "1 crops have a track and no camera: their tracks are not used",
        "1 crops have no time: nothing is kept apart from them",
    )
    linked = crop_constraints(CROPS, separate=False)
    assert linked.constraints is not None
    assert not linked.constraints.separate
    assert len(linked.notes) == 1


def test_a_track_that_pauses_is_two() -> None:
    crops = [crop("gate", "1", second) for second in (0.0, 299.0, 3000.0, 3001.0, 9000.0)] + [
        crop("gate", "2", second) for second in (50.0, 60.0)
    ]
    shuffled = np.random.default_rng(0).permutation(len(crops))
    read = crop_constraints([crops[i] for i in shuffled], separate=True)
    assert read.constraints is not None
    tracks = np.empty(len(crops), dtype=int)
    tracks[shuffled] = read.constraints.tracks
    same = tracks[:, None] == tracks
    expected = np.zeros((7, 7), dtype=bool)
    for group in ([0, 1], [2, 3], [4], [5, 6]):
        expected[np.ix_(group, group)] = True
    np.testing.assert_array_equal(same, expected)
    assert read.notes == ("1 tracks pause for more than 300 s: taken apart",)
    whole = crop_constraints(crops, separate=True, track_gap_seconds=6000).constraints
    assert whole is not None
    assert len(set(whole.tracks)) == 2
    timeless = crop_constraints([*crops, crop("gate", "1", None)], separate=False).constraints
    assert timeless is not None
    assert len(set(timeless.tracks)) == 2


def test_cameras_apart_are_all_or_those_named() -> None:
    crops = [crop(name, None, 0.0) for name in ("a", "b", "c")]
    everywhere = crop_constraints(crops, separate=True, apart="all", apart_seconds=1.5).constraints
    assert everywhere is not None
    np.testing.assert_array_equal(everywhere.apart, ~np.eye(3, dtype=bool))
    assert everywhere.apart_within == 1_500_000
    named = crop_constraints(crops, separate=True, apart=[("c", "a")]).constraints
    assert named is not None
    assert np.argwhere(named.apart).tolist() == [[0, 2], [2, 0]]
    for apart, message in (
        ([("a", "d")], "no crop is of camera 'd'; there are a, b, c"),
        ([("a", "a")], "'a' cannot lie apart from itself"),
        ("some", "give none, all, or pairs"),
    ):
        with pytest.raises(InvalidArgument, match=message) as caught:
            crop_constraints(crops, separate=True, apart=apart)
        assert caught.value.field == "apart_cameras"


def test_nothing_that_binds_is_said() -> None:
    for crops in ([], [crop("a", None, 0.0), crop("b", None, 1.0)], [crop(None, None, None)]):
        read = crop_constraints(crops, separate=True)
        assert read.constraints is None
        assert "no crop has a track" in read.notes[-1]
    assert crop_constraints(CROPS[3:4], separate=False, apart="all").constraints is None
