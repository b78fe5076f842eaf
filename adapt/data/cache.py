"""Decoded crops, kept once as uint8 so that epochs are bound by the network, not by JPEG.

A cache is a folder ``<root>/<key>/`` with ``pixels.npy`` (N x H x W x 3 uint8, memory-mapped) and
``index.json``. The key digests paths, sizes, modification times and preprocessing, so a changed
crop or another input size gives another cache. It is built in a folder of its own and renamed when
complete: a build that was interrupted leaves nothing that a later run could mistake for a cache.
Beside the pixels ``progress.json`` says how many crops, in order, are on the disk; the next build
of the same cache takes such a folder over from a process that is gone, and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.crops import (
    DEFAULT_LIMITS,
    CropRef,
    Fault,
    ImageLimits,
    Preprocessing,
    SkippedCrop,
    fault_of,
    prepare,
    read_crop,
)
from resight.errors import FailedPrecondition, ImageTooLarge, UndecodableImage

__all__ = ["CropCache", "build_cache", "cache_key"]

_Skip = tuple[Fault, str]
_IN_FLIGHT = 64
_PROGRESS = "progress.json"
_SPARE_BYTES = 64 * 2**20
# Crops between two writes of the progress: 200 MB of them at 256 x 128.
_RECORDED = 2048


@dataclass(frozen=True)
class CropCache:
    """Decoded crops of one source at one input size.

    Attributes:
        pixels: (M, H, W, 3) uint8, memory-mapped read-only; rows of skipped crops are unused.
        rows: (N,) int64, the row of ``pixels`` of each usable crop.
        crops: The N usable crops, in the order of ``rows``.
        skipped: Crops that did not decode, with the reason.
        key: Digest naming the cache.
        reused: Whether it was found rather than built.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    crops: tuple[CropRef, ...]
    skipped: tuple[SkippedCrop, ...]
    key: str
    reused: bool

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies crops ``indices`` (B,) into a new (B, H, W, 3) uint8 array."""
        return self.pixels[self.rows[indices]]


def cache_key(crops: Sequence[CropRef], preprocessing: Preprocessing) -> str:
    """Digest of what the decoded pixels depend on: files (path, size, mtime) and preprocessing."""
    digest = hashlib.sha256()
    size = (preprocessing.height, preprocessing.width, preprocessing.resize_filter)
    digest.update(json.dumps(["resight-crop-cache-1", *size]).encode())
    for crop in crops:
        try:
            status = crop.path.stat()
            seen = (status.st_size, status.st_mtime_ns)
        except OSError:
            seen = (-1, -1)
        digest.update(json.dumps([str(crop.path.absolute()), *seen]).encode())
    return digest.hexdigest()[:32]


def build_cache(
    crops: Sequence[CropRef],
    preprocessing: Preprocessing,
    root: Path,
    *,
    threads: int = 2,
    limits: ImageLimits = DEFAULT_LIMITS,
    advance: Callable[[int], None] = lambda _count: None,
) -> CropCache:
    """Opens the cache of ``crops`` under ``root``, building it first when it is not there.

    Args:
        advance: Called with the number of crops done, for a progress bar.

    Raises:
        FailedPrecondition: There is not enough free space under ``root``.
    """
    key = cache_key(crops, preprocessing)
    final = root / key
    reused = (final / "index.json").is_file()
    if not reused:
        root.mkdir(parents=True, exist_ok=True)
        partial = root / f"{key}.partial.{os.getpid()}"
        progress = _take_over(root, key, partial)
        left = len(crops) - progress.done
        _require_space(root, left * preprocessing.height * preprocessing.width * 3)
        partial.mkdir(exist_ok=True)
        try:
            _fill(crops, preprocessing, partial, progress, threads, limits, advance)
            with suppress(OSError):  # another run may have finished the same cache meanwhile
                partial.rename(final)
        finally:
            # What is left of an interrupted build is for the next one, if it got anywhere.
            if final.exists() or not _Progress.read(partial).done:
                shutil.rmtree(partial, ignore_errors=True)
    return _open(final, crops, key, reused=reused)


@dataclass
class _Progress:
    """How far a build has come.

    Attributes:
        done: Crops, in order, that are on the disk.
        skipped: Those of them that did not decode, by row.
    """

    done: int
    skipped: dict[int, _Skip]

    @classmethod
    def read(cls, folder: Path) -> _Progress:
        """That of ``folder``; nothing where it is not known."""
        try:
            stored = json.loads((folder / _PROGRESS).read_text())
            return cls(int(stored["done"]), _skips(stored["skipped"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(0, {})

    def write(self, folder: Path) -> None:
        """Replaces that of ``folder``."""
        partial = folder / f"{_PROGRESS}.partial"
        with partial.open("w") as stream:
            json.dump({"done": self.done, "skipped": self.skipped}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(folder / _PROGRESS)


def _fill(
    crops: Sequence[CropRef],
    preprocessing: Preprocessing,
    folder: Path,
    progress: _Progress,
    threads: int,
    limits: ImageLimits,
    advance: Callable[[int], None],
) -> None:
    shape = (len(crops), preprocessing.height, preprocessing.width, 3)
    pixels = _open_pixels(folder / "pixels.npy", shape, progress)
    if progress.done:
        advance(progress.done)
    skipped = progress.skipped

    def decode_into(row: int) -> _Skip | None:
        try:
            data = read_crop(crops[row].path, limits=limits)
            pixels[row] = prepare(data, preprocessing, limits=limits)
        except (UndecodableImage, ImageTooLarge) as error:
            return fault_of(error), error.message
        return None

    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:
        for row, skip in _bounded(pool, decode_into, range(progress.done, len(crops))):
            if skip is not None:
                skipped[row] = skip
            advance(1)
            if (row + 1) % _RECORDED == 0:
                # The pixels first: a power cut must not leave noughts that are counted as done.
                pixels.flush()
                progress.done = row + 1
                progress.write(folder)
    pixels.flush()
    # On the disk before the rename is: a power cut must not leave a cache of noughts.
    with (folder / "index.json").open("w") as stream:
        stream.write(json.dumps({"skipped": skipped}))
        stream.flush()
        os.fsync(stream.fileno())
    for name in (_PROGRESS, f"{_PROGRESS}.partial"):
        (folder / name).unlink(missing_ok=True)


def _open_pixels(
    path: Path, shape: tuple[int, ...], progress: _Progress
) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The array to fill; anew, and ``progress`` with it, where there is none of that shape."""
    if progress.done:
        with suppress(OSError, ValueError):
            # Opened for reading a file that is cut short is refused, for writing it is filled up.
            held = np.lib.format.open_memmap(path, mode="r")
            if held.shape == shape and held.dtype == np.uint8 and progress.done <= len(held):
                return np.lib.format.open_memmap(path, mode="r+")
        progress.done = 0
        progress.skipped.clear()
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[int], _Skip | None], rows: Iterable[int]
) -> Iterator[tuple[int, _Skip | None]]:
    """Results in order with at most ``_IN_FLIGHT`` pending, so that Ctrl-C is answered soon."""
    waiting: list[tuple[int, Future[_Skip | None]]] = []
    iterator = iter(rows)
    try:
        waiting.extend((row, pool.submit(work, row)) for row in islice(iterator, _IN_FLIGHT))
        while waiting:
            row, future = waiting.pop(0)
            yield row, future.result()
            waiting.extend((nxt, pool.submit(work, nxt)) for nxt in islice(iterator, 1))
    finally:
        for _, future in waiting:
            future.cancel()


def _open(folder: Path, crops: Sequence[CropRef], key: str, *, reused: bool) -> CropCache:
    index = json.loads((folder / "index.json").read_text())
    skips = _skips(index["skipped"])
    rows = np.array([row for row in range(len(crops)) if row not in skips], dtype=np.int64)
    pixels: NDArray[np.uint8] = np.load(folder / "pixels.npy", mmap_mode="r")
    return CropCache(
        pixels=pixels,
        rows=rows,
        crops=tuple(crops[row] for row in rows),
        skipped=tuple(SkippedCrop(crops[row].path, *skip) for row, skip in skips.items()),
        key=key,
        reused=reused,
    )


def _skips(stored: Mapping[str, tuple[str, str]]) -> dict[int, _Skip]:
    return {int(row): (Fault(reason), detail) for row, (reason, detail) in stored.items()}


def _require_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if needed + _SPARE_BYTES > free:
        raise FailedPrecondition(
            f"the crop cache needs {needed / 2**20:.0f} MiB under {root}, which has "
            f"{free / 2**20:.0f} MiB free; name another place with --cache",
            field="cache",
            reason="NO_SPACE",
        )


def _take_over(root: Path, key: str, own: Path) -> _Progress:
    """Makes what a process that is gone has left of this cache ``own``, and removes the rest."""
    abandoned = []
    for partial in root.glob(f"{key}.partial.*"):
        owner = partial.name.rpartition(".")[2]
        if not owner.isdigit() or not _alive(int(owner)):
            abandoned.append((_Progress.read(partial).done, partial))
    for done, partial in sorted(abandoned, reverse=True):
        with suppress(OSError):  # another run may have taken it meanwhile
            if done and not own.exists():
                partial.rename(own)
        if partial != own:
            shutil.rmtree(partial, ignore_errors=True)
    return _Progress.read(own)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
