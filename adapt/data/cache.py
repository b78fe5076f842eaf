"""Decoded crops, kept once as uint8 so that epochs are bound by the network, not by JPEG.

A cache is a folder ``<root>/<key>/`` with ``pixels.npy`` (N x H x W x 3 uint8, memory-mapped) and
``index.json``. The key digests paths, sizes, modification times and preprocessing, so a changed
crop or another input size gives another cache. It is built in a folder of its own and renamed when
complete: a build that was interrupted leaves nothing that a later run could mistake for a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

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
_SPARE_BYTES = 64 * 2**20


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
        advance: Called with the number of crops newly decoded, for a progress bar.

    Raises:
        FailedPrecondition: There is not enough free space under ``root``.
    """
    key = cache_key(crops, preprocessing)
    final = root / key
    reused = (final / "index.json").is_file()
    if not reused:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root, key)
        _require_space(root, len(crops) * preprocessing.height * preprocessing.width * 3)
        partial = root / f"{key}.partial.{os.getpid()}"
        partial.mkdir(exist_ok=True)
        try:
            _fill(crops, preprocessing, partial, threads, limits, advance)
            with suppress(OSError):  # another run may have finished the same cache meanwhile
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _open(final, crops, key, reused=reused)


def _fill(
    crops: Sequence[CropRef],
    preprocessing: Preprocessing,
    folder: Path,
    threads: int,
    limits: ImageLimits,
    advance: Callable[[int], None],
) -> None:
    shape = (len(crops), preprocessing.height, preprocessing.width, 3)
    pixels = np.lib.format.open_memmap(
        folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    skipped: dict[int, _Skip] = {}

    def decode_into(row: int) -> _Skip | None:
        try:
            data = read_crop(crops[row].path, limits=limits)
            pixels[row] = prepare(data, preprocessing, limits=limits)
        except (UndecodableImage, ImageTooLarge) as error:
            return fault_of(error), error.message
        return None

    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:
        for row, skip in _bounded(pool, decode_into, range(len(crops))):
            if skip is not None:
                skipped[row] = skip
            advance(1)
    pixels.flush()
    # On the disk before the rename is: a power cut must not leave a cache of noughts.
    with (folder / "index.json").open("w") as stream:
        stream.write(json.dumps({"skipped": skipped}))
        stream.flush()
        os.fsync(stream.fileno())


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
    skips = {
        int(row): (Fault(reason), detail) for row, (reason, detail) in index["skipped"].items()
    }
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


def _require_space(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if needed + _SPARE_BYTES > free:
        raise FailedPrecondition(
            f"the crop cache needs {needed / 2**20:.0f} MiB under {root}, which has "
            f"{free / 2**20:.0f} MiB free; name another place with --cache",
            field="cache",
            reason="NO_SPACE",
        )


def _remove_abandoned(root: Path, key: str) -> None:
    for partial in root.glob(f"{key}.partial.*"):
        owner = partial.name.rpartition(".")[2]
        if not owner.isdigit() or not _alive(int(owner)):
            shutil.rmtree(partial, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()
