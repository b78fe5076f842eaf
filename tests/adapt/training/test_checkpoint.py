"""What a checkpoint is bound to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapt.training.checkpoint import crop_set_digest
from resight.crops.crop import CropRef
from resight.crops.preprocessing import Preprocessing


def test_the_digest_tells_crop_sets_apart_by_all_that_decides_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1234")
    (tmp_path / "b.jpg").write_bytes(b"1234")
    (tmp_path / "longer").mkdir()
    longer = tmp_path / "longer" / "a.jpg"
    longer.write_bytes(b"12345")
    crop = CropRef(path, "c1", datetime(2026, 1, 1, tzinfo=UTC), "t1")
    size = Preprocessing(64, 32, "bilinear")
    digests = {
        crop_set_digest([one], size)
        for one in (
            crop,
            replace(crop, path=tmp_path / "b.jpg"),
            replace(crop, path=longer),
            replace(crop, camera="c2"),
            replace(crop, track="t2"),
            replace(crop, capture_time=None),
        )
    }
    digests.add(crop_set_digest([crop], Preprocessing(32, 64, "bilinear")))
    assert len(digests) == 7
    assert crop_set_digest([replace(crop, zone="gate")], size) in digests


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_digest_depends_on_the_order(tmp_path: Path, order: tuple[int, int]) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        path.write_bytes(b"1")
    size = Preprocessing(64, 32, "bilinear")
    given = crop_set_digest([CropRef(path) for path in paths], size)
    assert (given == crop_set_digest([CropRef(paths[at]) for at in order], size)) == (
        order == (0, 1)
    )
