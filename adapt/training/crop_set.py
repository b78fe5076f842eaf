"""The crops of a run: read from a source, decoded once, cameras coded."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from adapt.data.cache import CropCache, build_cache
from adapt.data.cameras import CameraCodes, camera_codes
from adapt.data.constraints import CropConstraints, crop_constraints
from adapt.training.config import RunConfig
from adapt.training.distributed import current
from resight.console import ProgressBar, note, progress
from resight.crops import CropRef, Preprocessing, SkippedCrop, open_source
from resight.errors import InvalidArgument

__all__ = ["CropSet", "decode_crops", "read_crop_set"]


@dataclass(frozen=True)
class CropSet:
    """What a run trains on.

    Attributes:
        cache: The decoded crops.
        cameras: Their cameras, as far as the run may use them.
        constraints: What their tracks and times say, as far as the run may use it.
        skipped: Crops not used.
        preprocessing: Input size and filter.
    """

    cache: CropCache
    cameras: CameraCodes
    constraints: CropConstraints
    skipped: tuple[SkippedCrop, ...]
    preprocessing: Preprocessing

    def counts(self) -> dict[str, object]:
        """What the summary says of the source."""
        crops = self.cache.crops
        return {
            "usable": len(crops),
            "skipped": len(self.skipped),
            "skipped_by_reason": dict(sorted(Counter(str(s.reason) for s in self.skipped).items())),
            "cameras": dict(sorted(Counter(c.camera for c in crops if c.camera).items())),
            "without_camera": sum(crop.camera is None for crop in crops),
            "without_time": sum(crop.capture_time is None for crop in crops),
            "cameras_used": self.cameras.codes is not None,
        }


def read_crop_set(
    source: str | Path, config: RunConfig, *, cache: Path, skipped_csv: Path, threads: int
) -> CropSet:
    """Scans ``source``, decodes its crops into ``cache`` and lists the skipped ones.

    Raises:
        InvalidArgument: Too few crops are usable for ``config``.
    """
    report = open_source(source).scan(check="header")
    preprocessing = Preprocessing(config.height, config.width, config.resize_filter)
    _write_skipped(skipped_csv, report.skipped)
    report.require_crops()
    built = decode_crops(report.crops, preprocessing, cache, threads)
    skipped = (*report.skipped, *built.skipped)
    _write_skipped(skipped_csv, skipped)
    _require_enough(len(built), len(skipped), config, source)
    cameras = camera_codes(built.crops, ignore=config.ignore_cameras)
    return CropSet(built, cameras, _constraints(built.crops, config), skipped, preprocessing)


def decode_crops(
    crops: Sequence[CropRef], preprocessing: Preprocessing, folder: Path, threads: int
) -> CropCache:
    """The cache of ``crops`` under ``folder``; of several ranks the first builds it."""
    with current().leading(), ExitStack() as shown:
        bar: ProgressBar | None = None

        def advance(count: int) -> None:
            nonlocal bar
            if bar is None:
                bar = shown.enter_context(progress("decode crops", len(crops)))
            bar.advance(count)

        built = build_cache(crops, preprocessing, folder, threads=threads, advance=advance)
    if built.reused:
        note(f"decoded crops are reused: {len(built)}, from {folder}")
    return built


def _constraints(crops: Sequence[CropRef], config: RunConfig) -> CropConstraints:
    if config.tracklets == "off":
        return CropConstraints(None, ())
    return crop_constraints(
        crops,
        separate=config.tracklets == "separate",
        apart=config.apart_cameras,
        apart_seconds=config.apart_seconds,
        track_gap_seconds=config.track_gap_seconds,
    )


def _require_enough(usable: int, skipped: int, config: RunConfig, source: str | Path) -> None:
    needed = 2 if config.method == "bn-stats" else max(2, config.min_samples)
    if usable < needed:
        raise InvalidArgument(
            f"{source} has {usable} usable crops ({skipped} skipped); {config.method} needs"
            f" at least {needed}, and some hundreds to learn from: name a source with more",
            field="crops",
            reason="TOO_FEW_CROPS",
        )


def _write_skipped(path: Path, skipped: Sequence[SkippedCrop]) -> None:
    if not current().first:
        return
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "reason", "detail"])
        writer.writerows([str(crop.path), str(crop.reason), crop.detail] for crop in skipped)
