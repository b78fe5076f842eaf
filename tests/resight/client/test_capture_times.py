"""Missing capture times are an error or come from where the caller said."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from resight.client.capture_times import CaptureTimeSource, with_capture_times
from resight.crops import CropRef
from resight.errors import InvalidArgument

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_known_times_are_kept() -> None:
    known = CropRef(Path("a.jpg"), camera="c1", capture_time=START)
    assert with_capture_times([known], source=None, start=None) == [known]
    mtime = CaptureTimeSource.MTIME
    assert with_capture_times([known], source=mtime, start=None) == [known]


def test_a_missing_time_names_the_ways_out() -> None:
    with pytest.raises(InvalidArgument) as caught:
        with_capture_times([CropRef(Path("a.jpg"))], source=None, start=None)
    for words in ("a.jpg", "--capture-time-from mtime", "--assume-start", "manifest"):
        assert words in caught.value.message


def test_the_files_own_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    os.utime(path, (1_767_225_600, 1_767_225_600))
    (crop,) = with_capture_times([CropRef(path)], source=CaptureTimeSource.MTIME, start=None)
    assert crop.capture_time == START


def test_frames_of_a_name() -> None:
    names = ["0001_c1s1_000050_00.jpg", "-1_c3s2_000000_02.jpg", "0002_c1s1_000051_00.jpg"]
    crops = with_capture_times(
        [CropRef(Path(name)) for name in names], source=CaptureTimeSource.FRAME, start=START
    )
    assert [crop.capture_time for crop in crops] == [
        START + timedelta(seconds=2),
        START + timedelta(hours=12),
        START + timedelta(seconds=2.04),
    ]


def test_frames_need_a_start_and_a_frame() -> None:
    frame = CaptureTimeSource.FRAME
    with pytest.raises(InvalidArgument, match="assume-start"):
        with_capture_times([CropRef(Path("0001_c1s1_000050_00.jpg"))], source=frame, start=None)
    with pytest.raises(InvalidArgument, match="frame number"):
        with_capture_times([CropRef(Path("holiday.jpg"))], source=frame, start=START)
