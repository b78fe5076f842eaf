"""The crop cache: same pixels as decoding, built once, never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt.data.cache import build_cache, cache_key
from resight.crops import CropRef, Preprocessing, open_source, prepare, read_crop
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


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from adapt.data import cache
    from resight.crops import Preprocessing, open_source
    folder, root, after = sys.argv[1:]
    crops = open_source(Path(folder)).scan(check="header").crops
    cache._RECORDED = 8
    done = []
    def advance(count):
        done.append(count)
        if sum(done) >= int(after):
            os.kill(os.getpid(), signal.SIGKILL)
    cache.build_cache(crops, Preprocessing(24, 12), Path(root), threads=1, advance=advance)
"""


@pytest.fixture
def half_built(make_crops: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """48 crops, two broken, and the cache that a build killed after 30 of them has left."""
    folder, root = make_crops(), tmp_path / "cache"
    images = sorted(folder.iterdir())
    # Of the header a scan finds nothing wrong.
    for row in (3, 40):
        images[row].write_bytes(images[row].read_bytes()[:200])
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(root), "30"]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    return folder, root


def built_again(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Builds, compares with a cache made at once, and counts the crops read."""
    read: list[Path] = []

    def reading(path: Path, **more: Any) -> bytes:
        read.append(path)
        return read_crop(path, **more)

    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("adapt.data.cache.read_crop", reading)
        cache = build_cache(refs(folder), SIZE, root, advance=done.append)
    whole = build_cache(refs(folder), SIZE, root.with_name("whole"))
    assert (cache.reused, sum(done)) == (False, 48)
    assert [p.name for p in root.iterdir()] == [cache.key]
    assert {p.name for p in (root / cache.key).iterdir()} == {"pixels.npy", "index.json"}
    assert cache.skipped == whole.skipped
    assert len(cache.skipped) == 2
    assert np.array_equal(cache.rows, whole.rows)
    assert np.array_equal(cache.gather(np.arange(46)), whole.gather(np.arange(46)))
    return len(read)


def test_a_build_goes_on_where_a_killed_one_was(
    half_built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built_again(*half_built, monkeypatch) == 48 - 24


@pytest.mark.parametrize("damage", ["progress", "beyond", "pixels", "shape"])
def test_what_is_left_and_does_not_fit_is_built_anew(
    half_built: tuple[Path, Path], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [left] = half_built[1].iterdir()
    pixels = left / "pixels.npy"
    if damage == "progress":
        (left / "progress.json").write_text('{"done": 24')
    elif damage == "beyond":
        (left / "progress.json").write_text('{"done": 99, "skipped": {}}')
    elif damage == "pixels":
        pixels.write_bytes(pixels.read_bytes()[:-5])
    else:
        np.save(pixels, np.zeros((48, 24, 13, 3), dtype=np.uint8))
    assert built_again(*half_built, monkeypatch) == 48


def test_a_build_that_ctrl_c_ends_is_kept_and_one_that_got_nowhere_is_not(
    make_crops: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, root = refs(make_crops()), tmp_path / "cache"

    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(crops, SIZE, root, advance=interrupt)
    assert list(root.iterdir()) == []
    monkeypatch.setattr("adapt.data.cache._RECORDED", 1)
    done: list[int] = []

    def interrupt_later(count: int) -> None:
        done.append(count)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(crops, SIZE, root, advance=interrupt_later)
    assert len(list(root.iterdir())) == 1
    steps: list[int] = []
    assert len(build_cache(crops, SIZE, root, advance=steps.append)) == 48
    assert (steps[0], len(steps)) == (4, 1 + 44)


def test_a_full_disk_is_said_before_decoding(
    make_crops: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = refs(make_crops())
    monkeypatch.setattr(
        "adapt.data.cache.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10})
    )
    with pytest.raises(FailedPrecondition, match="--cache"):
        build_cache(crops, SIZE, tmp_path / "cache")
