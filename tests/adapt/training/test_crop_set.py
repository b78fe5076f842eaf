"""What reading a run's crops says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapt.training.config import RunConfig
from adapt.training.crop_set import read_crop_set


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
