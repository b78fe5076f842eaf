"""When a run may use cameras."""

from __future__ import annotations

from pathlib import Path

from adapt.data.cameras import camera_codes
from resight.crops import CropRef


def crops(*cameras: str | None) -> list[CropRef]:
    return [CropRef(Path(f"{i}.png"), camera) for i, camera in enumerate(cameras)]


def test_known_cameras_are_coded() -> None:
    found = camera_codes(crops("b", "a", "b"), ignore=False)
    assert found.codes is not None
    assert found.codes.tolist() == [1, 0, 1]
    assert found.names == ("a", "b")
    assert found.notes == ()


def test_told_to_ignore() -> None:
    found = camera_codes(crops("b", "a"), ignore=True)
    assert (found.codes, found.notes) == (None, ())


def test_one_unknown_camera_makes_the_run_camera_free() -> None:
    found = camera_codes(crops("b", None, "a"), ignore=False)
    assert found.codes is None
    assert "1 of 3 crops have no camera" in found.notes[0]


def test_a_single_camera_is_reported() -> None:
    found = camera_codes(crops("a", "a"), ignore=False)
    assert found.codes is not None
    assert "one camera" in found.notes[0]
