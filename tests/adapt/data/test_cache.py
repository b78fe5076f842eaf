"""The crop cache: same pixels as decoding, built once, never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapt.data.cache import build_cache, cache_key
from resight.crops import CropRef, Preprocessing, open_source, prepare
from resight.errors import FailedPrecondition

SIZE = Preprocessing(24, 12)


def refs(folder: Path) -> tuple[CropRef, ...]:
    return open_source(folder).scan(check="header").crops


def test_rows_equal_the_one_decoding_path(make_crops: Callable[..., Path], tmp_path: Path) -> None:
    crops = refs(make_crops())
    cache = build_cache(crops, SIZE, tmp_path / "cache", threads=3)
    assert len(cache) == len(crops) == 48
    order = np.array([5, 0, 47, 5])
    expected = np.stack([prepare(crops[i].path.read_bytes(), SIZE) for i in order])
    assert np.array_equal(cache.gather(order), expected)


def test_a_second_build_decodes_nothing(make_crops: Callable[..., Path], tmp_path: Path) -> None:
    crops, decoded = refs(make_crops()), []
    first = build_cache(crops, SIZE, tmp_path / "cache", advance=decoded.append)
    second = build_cache(crops, SIZE, tmp_path / "cache", advance=decoded.append)
    assert (first.reused, second.reused, sum(decoded)) == (False, True, 48)
    assert np.array_equal(first.gather(np.arange(48)), second.gather(np.arange(48)))


def test_a_changed_crop_or_size_is_another_cache(make_crops: Callable[..., Path]) -> None:
    folder = make_crops()
    before = cache_key(refs(folder), SIZE)
    assert cache_key(refs(folder), Preprocessing(24, 16)) != before
    assert cache_key(refs(folder), Preprocessing(24, 12, "bicubic")) != before
    first = refs(folder)[0].path
    os.utime(first, ns=(1, 1))
    touched = cache_key(refs(folder), SIZE)
    first.unlink()
    assert len({before, touched, cache_key(refs(folder), SIZE)}) == 3


def test_broken_crops_are_listed_and_leave_no_hole(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    crops = refs(make_crops())
    whole = crops[3].path.read_bytes()
    crops[3].path.write_bytes(whole[: len(whole) // 2])
    crops[7].path.write_bytes(b"")
    cache = build_cache(crops, SIZE, tmp_path / "cache")
    found = {skip.path: str(skip.reason) for skip in cache.skipped}
    assert set(found) == {crops[3].path, crops[7].path}
    assert found[crops[7].path] == "zero-byte"
    assert len(cache) == 46
    kept = prepare(cache.crops[3].path.read_bytes(), SIZE)
    assert np.array_equal(cache.gather(np.array([3]))[0], kept)
    again = build_cache(crops, SIZE, tmp_path / "cache")
    assert again.reused
    assert again.skipped == cache.skipped


def test_a_killed_build_is_started_again(make_crops: Callable[..., Path], tmp_path: Path) -> None:
    folder, root = make_crops(), tmp_path / "cache"
    script = f"""
        import os, signal
        from pathlib import Path
        from adapt.data.cache import build_cache
        from resight.crops import Preprocessing, open_source
        crops = open_source(Path({str(folder)!r})).scan(check="header").crops
        done = []
        def advance(count):
            done.append(count)
            if len(done) == 20:
                os.kill(os.getpid(), signal.SIGKILL)
        build_cache(crops, Preprocessing(24, 12), Path({str(root)!r}), advance=advance)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p.name for p in root.iterdir()] != []
    cache = build_cache(refs(folder), SIZE, root)
    assert not cache.reused
    assert [p.name for p in root.iterdir()] == [cache.key]
    expected = np.stack([prepare(c.path.read_bytes(), SIZE) for c in cache.crops])
    assert np.array_equal(cache.gather(np.arange(len(cache))), expected)


def test_a_full_disk_is_said_before_decoding(
    make_crops: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = refs(make_crops())
    monkeypatch.setattr(
        "adapt.data.cache.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10})
    )
    with pytest.raises(FailedPrecondition, match="--cache"):
        build_cache(crops, SIZE, tmp_path / "cache")
