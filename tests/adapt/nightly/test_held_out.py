"""Crops that no night trains on: which they are, that they stay so, and when there are none."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from adapt.nightly.held_out import hold_out, is_held_out
from adapt.nightly.pull import PulledCrop

EVENING = 1_767_290_400.0


def crop(
    seconds: float, *, camera: str = "door", track: str = "", replay: bool = False
) -> PulledCrop:
    moment = datetime.fromtimestamp(EVENING + seconds, UTC).isoformat().replace("+00:00", "Z")
    crop_id = str(UUID(int=abs(hash((seconds, camera, track, replay)))))
    row = (f"{crop_id}.jpg", camera, moment, track, "")
    return PulledCrop(crop_id, Path(row[0]), replay, row)


def night(hours: float = 9.0, *, every: float = 10.0, replay: bool = False) -> list[PulledCrop]:
    times = np.arange(0.0, 3600 * hours, every)
    return [
        crop(seconds, camera=f"c{n % 3}", track=f"t{n // 7}", replay=replay)
        for n, seconds in enumerate(times.tolist())
    ]


def test_every_crop_of_a_held_out_block_is_judged_by_and_none_is_trained_on() -> None:
    crops = night()
    split = hold_out(crops, share=0.15, least=100)
    trained, judged = set(split.trained), set(split.judged)
    assert judged == {crop for crop in crops if is_held_out(crop, share=0.15)}
    assert not trained & judged
    assert 0.05 < len(judged) / len(crops) < 0.3
    assert split.note == f"judged by {len(judged)} crops that were not trained on"
    for camera in ("c0", "c1", "c2"):
        assert any(crop.row[1] == camera for crop in judged), "a block is held out at all cameras"
    blocks = [
        {datetime.fromisoformat(crop.row[2]).timestamp() // 600 for crop in part}
        for part in (trained, judged)
    ]
    assert not blocks[0] & blocks[1]


def test_no_track_is_on_both_sides() -> None:
    split = hold_out(night(), share=0.15, least=100)
    trained, judged = (
        {(crop.row[1], crop.row[3]) for crop in part} for part in (split.trained, split.judged)
    )
    assert not trained & judged
    aside = len(night()) - len(split.trained) - len(split.judged)
    assert 0 < aside < 0.05 * len(night()), "only what reaches over an edge is lost"


def test_a_track_s_name_used_again_hours_later_is_another_track() -> None:
    crops = [crop(seconds, track="1") for seconds in np.arange(0.0, 3600 * 9, 10.0).tolist()]
    split = hold_out(crops, share=0.15, least=100)
    assert len(split.trained) > 0.4 * len(crops)


def test_a_crop_held_out_tonight_is_never_trained_on_later() -> None:
    tonight = hold_out(night(), share=0.15, least=100)
    held = {crop.row[2] for crop in tonight.judged}
    for fresh in (night(9.0, every=9.0), night(0.2)):
        moved = [
            crop(seconds + 86_400, camera="yard")
            for seconds in np.arange(0.0, 10.0 * len(fresh), 10.0).tolist()
        ]
        later = hold_out([*moved, *night(replay=True)], share=0.15, least=100)
        assert any(crop.replay for crop in later.trained)
        assert not {crop.row[2] for crop in later.trained if crop.replay} & held
        assert not any(crop.replay for crop in later.judged), (
            "an older night may have trained on it"
        )


@pytest.mark.parametrize(
    ("crops", "share", "reason"),
    [
        (night(3.0, every=60.0), 0.15, "are fewer than 100"),
        (night(), 0.0, "held_out is 0"),
        ([c for c in night(24.0) if is_held_out(c, share=0.15)], 0.15, "are too many"),
    ],
    ids=["small", "off", "one hour"],
)
def test_where_too_few_or_too_many_would_be_held_out_all_are_trained_on(
    crops: list[PulledCrop], share: float, reason: str
) -> None:
    split = hold_out(crops, share=share, least=100)
    assert split.trained == tuple(crops)
    assert split.judged == ()
    assert split.note.startswith("judged by crops that were trained on: ")
    assert reason in split.note


def test_about_the_share_is_held_out_of_many_nights() -> None:
    times = np.random.default_rng(0).uniform(0, 365 * 86_400, 20_000)
    for share, expected in ((0.15, 1 / 7), (0.5, 1 / 2), (0.1, 1 / 10)):
        found = np.mean([is_held_out(crop(seconds), share=share) for seconds in times.tolist()])
        assert found == pytest.approx(expected, abs=0.01)
