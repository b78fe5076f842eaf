"""What reading a run's crops says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, read_crop_set


def test_crops_are_decoded_once_and_said_to_be_reused(
    make_crops: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops, said = make_crops(8, 6), []
    for _ in range(2):
        found = read_crop_set(
            crops,
            RunConfig(height=32, width=16),
            cache=tmp_path / "cache",
            skipped_csv=tmp_path / "skipped.csv",
            threads=1,
        )
        assert len(found.cache) == 48
        said.append(capsys.readouterr().err)
    assert "decode crops: 48 in" in said[0]
    assert "reused" not in said[0]
    assert "decode crops" not in said[1]
    assert "decoded crops are reused: 48" in said[1]


def test_tracks_and_times_are_read_where_the_settings_ask_for_them(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_crops(4, 4)
    lines = ["path,camera,capture_time,track"]
    for row, path in enumerate(sorted(folder.iterdir())):
        time = f"2024-05-01T06:00:{row:02d}Z"
        lines.append(f"{path.name},{'ab'[row % 2]},{time},{row // 4}")
    (folder / "crops.csv").write_text("\n".join(lines))

    def read(**settings: object) -> CropSet:
        return read_crop_set(
            folder / "crops.csv",
            RunConfig(height=32, width=16, **settings),  # type: ignore[arg-type]
            cache=tmp_path / "cache",
            skipped_csv=tmp_path / "skipped.csv",
            threads=1,
        )

    assert read().constraints.constraints is None
    linked = read(tracklets="link", track_gap_seconds=1.5).constraints
    assert linked.constraints is not None
    assert not linked.constraints.separate
    assert linked.notes == ("8 tracks pause for more than 1.5 s: taken apart",)
    apart = read(tracklets="separate", apart_cameras=(("a", "b"),), apart_seconds=0.5).constraints
    assert apart.constraints is not None
    assert apart.constraints.separate
    assert apart.constraints.apart.tolist() == [[False, True], [True, False]]
    assert apart.constraints.apart_within == 500_000
    assert apart.constraints.times.tolist() == [1_000_000 * row for row in range(16)]
    assert len(set(apart.constraints.tracks)) == 8
