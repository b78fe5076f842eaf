"""The bench that compares a service's own answers with the offline evaluation, on a small set."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("limit", "queries"), [(["--limit-queries", "3"], 3), ([], 8)])
def test_both_figures_are_of_the_same_queries(
    tiny_bundle: Path,
    make_jpeg: Callable[..., bytes],
    tmp_path: Path,
    limit: list[str],
    queries: int,
) -> None:
    for folder, seed, cameras in (("query", 0, "1"), ("gallery", 1000, "23")):
        (tmp_path / folder).mkdir()
        for number in range(8):
            for camera in cameras:
                name = f"{number + 1:04d}_c{camera}s1_{number:06d}_00.jpg"
                image = make_jpeg(seed + 10 * number + int(camera))
                (tmp_path / folder / name).write_bytes(image)
    (tmp_path / "gallery" / "-1_c1s1_000000_00.jpg").write_bytes(make_jpeg(5))
    done = subprocess.run(
        [sys.executable, "-m", "bench", "served_map", "--bundle", str(tiny_bundle),
         "--query", str(tmp_path / "query"), "--gallery", str(tmp_path / "gallery"), *limit],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["gallery"] == report["accepted"] == 16
    assert report["queries"] == report["served"]["queries"] == report["offline"]["queries"]
    assert report["queries"] == queries
    assert 0 < report["served"]["map"] < 1, "a set that every encoder ranks alike shows nothing"
    assert report["largest_difference"] < 1e-9
    assert report["difference"].keys() == {"map", "rank1"}
